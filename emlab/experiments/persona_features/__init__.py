"""Does a narrow fine-tune misalign a model broadly, and does one SAE latent carry it?"""
