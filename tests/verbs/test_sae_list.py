"""The names of SAEs."""

from emlab.saes import load_sae
from emlab.verbs.sae_list import list_saes


def test_emlabs_own_are_there_and_load():
    found = list_saes("smollm2")
    assert [one["name"] for one in found.shipped] == [
        "sae_checkpoints/smollm2-135m-instruct-resid_post.22",
        "sae_checkpoints/smollm2-135m-instruct-resid_post.8",
    ]
    assert load_sae(found.shipped[0]["name"]).cfg.d_sae == found.shipped[0]["d_sae"] == 4096
    assert "resid_post.22" in str(found)


def test_of_a_model_of_saelens_list_the_first_of_each_release_is_named():
    found = list_saes("gpt2-small")
    assert found.shipped == () and any(one["first"].startswith("gpt2-small-res-jb/") for one in found.releases)
    assert "SAEs in the release" in str(found) and "releases, of" in str(list_saes())
    assert "has an SAE of a model like 'nothing'" in str(list_saes("nothing"))
