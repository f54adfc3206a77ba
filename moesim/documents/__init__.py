"""Documents: text files that people write, read with their lines, and faults told by file and line.

``document`` is a parsed file and where its keys stand, ``plain_yaml`` reads one, ``validation`` checks it against a
pydantic model. Scenarios and cards come in through here.
"""

from moesim.documents.document import Document, Keys, read_text
from moesim.documents.plain_yaml import parse_yaml, read_yaml
from moesim.documents.validation import validate

__all__ = ["Document", "Keys", "parse_yaml", "read_text", "read_yaml", "validate"]
