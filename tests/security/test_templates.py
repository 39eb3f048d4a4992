"""A chat template is a program of the model's author: it runs in a sandbox, and reaches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from language_models import CHATML, byte_tokenizer
from lorafy.encoding.prompt import make_renderer
from lorafy.types import UserError

ATTEMPTS = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals": "{{ cycler.__init__.__globals__.os.system('touch ran') }}",
    "raise": "{{ raise_exception.__globals__['__builtins__']['open']('ran', 'w') }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "write": "{{ messages.append(1) }}",
    "include": "{% include '/etc/passwd' %}",
    "range": "{% for i in range(999999999) %}{% endfor %}",
}


@pytest.mark.parametrize("name", ATTEMPTS)
def test_a_template_reaches_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    tokenizer = byte_tokenizer(chat=True)
    make_renderer(tokenizer)
    tokenizer.chat_template = ATTEMPTS[name] + CHATML
    with pytest.raises(UserError, match="chat template"):
        make_renderer(tokenizer)
    assert list(tmp_path.iterdir()) == []
