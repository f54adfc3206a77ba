"""The text that the bundled models are trained on: documentation and source code out of Debian packages.

A domain is a set of files of installed packages. Its documents (files, not lines) are split by the hash of their
path into training, validation (tunes the bigram baseline) and held-out (evaluation and recorded requests). None of
the text is committed: the packages are its source, and their licences stand on each trace's card.
"""

import glob
import gzip
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

DOCUMENT_CHARACTERS = (1_500, 24_000)  # shorter files are left out, longer ones are cut
SPLIT_BYTES = {"train": 1_150_000, "validation": 40_000, "held_out": 70_000}  # most per domain, UTF-8
SPLIT_HUNDREDTHS = {"held_out": range(12), "validation": range(12, 16), "train": range(16, 100)}
SKIPPED_TAGS = {"script", "style", "head", "info"}
BLOCK_TAGS = {"p", "li", "dt", "dd", "tr", "pre", "div", "title", "item", "br"} | {f"h{n}" for n in range(1, 7)}
GPL2, GPL2_PLUS = "GPL-2.0-only", "GPL-2.0-or-later"
DOC = "/usr/share/doc"


@dataclass(frozen=True)
class Domain:
    """One domain: the files that match `globs`, out of the Debian packages `packages`, under `licence`."""

    name: str
    packages: tuple[str, ...]
    globs: tuple[str, ...]
    licence: str


@dataclass
class Corpus:
    """Documents by domain: `documents[split][domain index]` is a list of texts."""

    domains: tuple[Domain, ...]
    documents: dict[str, list[list[str]]] = field(default_factory=dict)

    def digest(self) -> str:
        """The sha256 (hex) over all documents in order: two equal digests mean equal text and equal splits."""
        sha = hashlib.sha256()
        for split in sorted(self.documents):
            for texts in self.documents[split]:
                for text in texts:
                    sha.update(text.encode() + b"\0")
        return sha.hexdigest()


def handbook(name: str, guide: str, book: str, reference: str, desktop: str) -> Domain:
    """The system handbooks of one language, given by its code in each of the four packages ("": none there)."""
    sources = {
        "installation-guide-amd64": f"{DOC}/installation-guide-amd64/{guide}/*.html",
        "debian-handbook": f"{DOC}/debian-handbook/html/{book}/*.html",
        f"debian-reference-{reference}": f"/usr/share/debian-reference/*.{reference}.html",
        "gnome-user-docs": f"/usr/share/help/{desktop}/gnome-help/*.page",
    }
    if not reference:
        del sources["debian-reference-"]
    return Domain(name, tuple(sources), tuple(sources.values()), f"{GPL2_PLUS}; CC-BY-SA-3.0 (desktop help)")


DOMAINS: tuple[Domain, ...] = (
    Domain("python", ("libpython3.11-stdlib",), ("/usr/lib/python3.11/**/*.py",), "PSF-2.0"),
    Domain(
        "c_headers",
        ("linux-libc-dev", "libc6-dev"),
        ("/usr/include/linux/**/*.h", "/usr/include/*.h", "/usr/include/x86_64-linux-gnu/*/*.h"),
        "GPL-2.0-only WITH Linux-syscall-note; LGPL-2.1-or-later",
    ),
    Domain("rust", ("rust-src",), ("/usr/src/rustc-*/library/[acs]*/src/**/*.rs",), "MIT OR Apache-2.0"),
    Domain("perl", ("perl-modules-5.36",), ("/usr/share/perl/5.36.0/**/*.p[lm]",), "Artistic-1.0-Perl OR GPL-1.0+"),
    Domain("perl_manual", ("perl-doc",), ("/usr/share/perl/5.36.0/pod/*.pod",), "Artistic-1.0-Perl OR GPL-1.0+"),
    Domain("tcl_manual", ("tcl8.6-doc",), ("/usr/share/man/man3/*.3tcl.gz",), "TCL"),
    Domain(
        "system_manual",
        ("manpages", "manpages-dev"),
        ("/usr/share/man/man[2457]/*.[2457].gz",),
        "Linux-man-pages-copyleft and others, see the packages' copyright files",
    ),
    Domain("kernel_manual", ("linux-doc-6.1",), (f"{DOC}/linux-doc-6.1/Documentation/**/*.rst.gz",), GPL2),
    Domain("sql_manual", ("postgresql-doc-15",), (f"{DOC}/postgresql-doc-15/html/*.html",), "PostgreSQL"),
    Domain("git_manual", ("git-doc",), (f"{DOC}/git/RelNotes/*.txt*", f"{DOC}/git/html/*.html"), GPL2),
    Domain("algebra_manual", ("maxima-doc",), (f"{DOC}/maxima-doc/html/*.html",), GPL2_PLUS),
    handbook("handbook_english", "en", "en-US", "en", "C"),
    handbook("handbook_german", "de", "de-DE", "de", "de"),
    handbook("handbook_french", "fr", "fr-FR", "fr", "fr"),
    handbook("handbook_spanish", "es", "es-ES", "es", "es"),
    handbook("handbook_russian", "ru", "ru-RU", "", "ru"),
    handbook("handbook_japanese", "ja", "ja-JP", "ja", "ja"),
    handbook("handbook_chinese", "zh_CN", "zh-CN", "zh-cn", "zh_CN"),
)


class TextOfMarkup(HTMLParser):
    """Collects the text of HTML and of Mallard pages: block tags end a line, navigation and styles are skipped."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.skipped = 0

    def handle_starttag(self, tag: str, _attributes: list[tuple[str, str | None]]) -> None:
        """A tag opens."""
        self.skipped += tag in SKIPPED_TAGS
        if tag in BLOCK_TAGS:
            self.parts.append("\n")

    def handle_startendtag(self, tag: str, _attributes: list[tuple[str, str | None]]) -> None:
        """A tag without content."""
        if tag in BLOCK_TAGS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        """A tag closes."""
        self.skipped -= tag in SKIPPED_TAGS and self.skipped > 0

    def handle_data(self, data: str) -> None:
        """Text between tags."""
        if not self.skipped:
            self.parts.append(data)


def read_document(path: Path) -> str:
    """The plain text of a file, at most `DOCUMENT_CHARACTERS[1]` characters; empty where it is not UTF-8 text."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return ""
    if path.suffix in {".html", ".page"}:
        parser = TextOfMarkup()
        parser.feed(text)
        text = re.sub(r"[ \t]*\n\s*\n\s*", "\n\n", re.sub(r"[ \t\u00a0]+", " ", "".join(parser.parts))).strip()
    return text[: DOCUMENT_CHARACTERS[1]]


def files_of(domain: Domain) -> Iterator[Path]:
    """The domain's files in an order that is fixed but unrelated to their names (by the hash of the path)."""
    paths = {name for pattern in domain.globs for name in glob.glob(pattern, recursive=True)}
    for name in sorted(paths, key=path_hash):
        path = Path(name)
        if path.is_file() and not path.is_symlink():
            yield path


def path_hash(path: str | Path) -> str:
    """What orders and splits the documents: stable from machine to machine."""
    return hashlib.sha256(str(path).encode()).hexdigest()


def split_of(path: Path) -> str:
    """The split that a document belongs to."""
    hundredth = int(path_hash(path)[-8:], 16) % 100
    return next(split for split, hundredths in SPLIT_HUNDREDTHS.items() if hundredth in hundredths)


def read_domain(domain: Domain) -> dict[str, list[str]]:
    """The domain's documents by split, each split up to its `SPLIT_BYTES`; no document twice."""
    documents: dict[str, list[str]] = {split: [] for split in SPLIT_BYTES}
    room = dict(SPLIT_BYTES)
    seen: set[str] = set()
    for path in files_of(domain):
        split = split_of(path)
        text = read_document(path) if room[split] > 0 else ""
        if len(text) < DOCUMENT_CHARACTERS[0] or text in seen:
            continue
        seen.add(text)
        room[split] -= len(text.encode())
        documents[split].append(text)
    missing = [split for split, texts in documents.items() if not texts]
    if missing:
        told = f"corpus: domain {domain.name} has no {' and no '.join(missing)} documents"
        raise SystemExit(f"{told}\n\nhint: apt-get install {' '.join(domain.packages)}")
    return documents


def read_corpus() -> Corpus:
    """Read every domain. Ends with a hint naming the packages to install where a domain has no text."""
    corpus = Corpus(DOMAINS, {split: [] for split in SPLIT_BYTES})
    for domain in DOMAINS:
        for split, texts in read_domain(domain).items():
            corpus.documents[split].append(texts)
    return corpus
