"""What a language model is asked when it judges reports: the protocol of the paper and both of PULSE.

The wording is ours; criteria, scales, and whether the judge sees the page are theirs. The paper (arXiv:2501.18670)
names four criteria from 0 to 100 and shows the image; PULSE's evaluation/prompts.py has three from 0 to 10, without;
another three for the dialogs of its arena.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How reports are judged.

    Attributes:
        name: as in PROTOCOLS.
        criteria: key of the reply -> what it asks.
        best: the highest mark; the lowest is 0.
        sees_page: whether the page stands in the message.
    """

    name: str
    criteria: dict[str, str]
    best: int
    sees_page: bool

    def messages(self, reference: str, candidate: str, page: bytes | None) -> list[dict[str, Any]]:
        """One user message.

        Args:
            reference, candidate: reports.
            page: PNG; needed if and only if the protocol shows it.

        Raises:
            ValueError: if the protocol shows a page and there is none.
        """
        if self.sees_page and page is None:
            raise ValueError(f"judge protocol {self.name} shows the page, and there is none")
        asked = "\n".join(f"- {key}: {question}" for key, question in self.criteria.items())
        form = json.dumps(dict.fromkeys(self.criteria, 0))
        text = (
            f"Compare a generated ECG report with the reference report{' and the ECG page' if self.sees_page else ''}. "
            f"Give each criterion a number from 0 (wrong or missing) to {self.best} (fully right). Judge only what the "
            f"reference {'or the page ' if self.sees_page else ''}supports; a longer text is not a better one."
            f"\n{asked}\n"
            f"Reply with one JSON object and nothing else, with these keys: {form}\n\n"
            f"Reference report:\n{reference}\n\nGenerated report:\n{candidate}"
        )
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if self.sees_page and page is not None:
            url = f"data:image/png;base64,{base64.b64encode(page).decode()}"
            content.insert(0, {"type": "image_url", "image_url": {"url": url}})
        return [{"role": "user", "content": content}]

    def marks(self, reply: str) -> dict[str, float]:
        """The numbers of a reply.

        Raises:
            ValueError: if it is not one JSON object with exactly the criteria, each a number within the scale.
        """
        try:
            parsed = json.loads(reply)
        except json.JSONDecodeError as error:
            raise ValueError(f"no JSON: {error}") from error
        if not isinstance(parsed, dict) or parsed.keys() != self.criteria.keys():
            keys = list(parsed) if isinstance(parsed, dict) else type(parsed).__name__
            raise ValueError(f"keys must be {list(self.criteria)}, got {keys}")
        for key, value in parsed.items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= self.best:
                raise ValueError(f"{key}={value!r} is not a number from 0 to {self.best}")
        return {key: float(value) for key, value in parsed.items()}

    def score(self, marks: dict[str, float]) -> float:
        """Mean of the criteria, 0 to 100."""
        return 100 * sum(marks.values()) / (len(marks) * self.best)


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            name="paper",
            criteria={
                "medical_accuracy": "are the stated findings and diagnoses correct?",
                "image_consistency": "does the report agree with what the page shows?",
                "completeness": "are rhythm, rate, waves and intervals covered?",
                "clinical_utility": "could a clinician act on it?",
            },
            best=100,
            sees_page=True,
        ),
        Protocol(
            name="pulse",
            criteria={
                "diagnosis": "conduction disturbances, ischaemia, hypertrophy and other diagnoses of the reference",
                "waveform": "P waves, QRS complexes, ST segments, T waves, PR and QT intervals",
                "rhythm": "rhythm and rate",
            },
            best=10,
            sees_page=False,
        ),
        Protocol(
            name="arena",
            criteria={
                "accuracy": "do the answers agree with the reference answers?",
                "completeness": "do they cover what the reference answers cover?",
                "instruction_adherence": "do they answer what was asked, in the form that was asked for?",
            },
            best=10,
            sees_page=False,
        ),
    )
}
