"""What all engines raise."""

from mxweir_milter.verdict import Reason


class EngineError(Exception):
    """A scanner that gave no usable answer; the text is for the log."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
