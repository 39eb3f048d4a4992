"""What is shown of a vision-language model: as of a language model, and how it is asked about a picture."""

from __future__ import annotations

from .language import LanguageView


class VisionView(LanguageView):
    """The figures of a language model; the samples bring their pictures."""

    commands = (
        ("talk to it; /image PATH shows a picture", "lorafy chat {run}"),
        ("ask it about a picture", 'lorafy generate {run} --image picture.jpg --prompt "text"'),
    )
