"""Reading a sharded checkpoint: against from_pretrained, and against nothing but safetensors."""

from benchmarks.cases import Case

CASES = [
    Case(name="load, against from_pretrained", job="Loading", check={}, goals={"load": 1.0}),
    Case(name="load, against safetensors alone", job="Loading", their_job="Reading", check={}, goals={"load": 1.0}),
]
