"""Which models a monitor belongs to, as far as their chat templates go."""

import dataclasses

import pytest

from emlab.detection import Lineage
from emlab.errors import EmlabError


def test_another_chat_template_is_refused_and_an_older_file_is_read(make_model):
    one, same, other = make_model("chatml"), make_model("chatml"), make_model("llama3")
    own = Lineage.of(one)
    own.check(Lineage.of(same))
    with pytest.raises(EmlabError, match="chat template of tiny writes a question differently"):
        own.check(Lineage.of(other))
    dataclasses.replace(own, template="").check(Lineage.of(other))
