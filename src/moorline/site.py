"""A site of the shape that Gatsby builds, for the demonstration and for tests.

The same bytes on every machine and every Python: all of it grows from SHAKE-128 of names, modes are
set whatever the umask is, and nothing asks a clock. 900 pages make 2,500 files in 2,050
directories, 86 MB:

    <section>/<slug>/index.html                       a page
    page-data/<section>/<slug>/page-data.json         the same page for the browser's own router
    static/<hash>/<name>-<width>.jpg                  pictures in three widths
    app-<hash>.js, component---<name>-<hash>.js, ...  bundles with hashed names
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from moorline.manifest import Entry, Manifest
from moorline.source import Source

PAGES = 900
PAGES_PER_PICTURE = 4
WORDS_PER_PARAGRAPH = 90
PARAGRAPHS = 16

_HOST = "https://www.example.com"
_SECTIONS = ("blog", "docs", "guides", "news", "products")
_WIDTHS = {480: 20_000, 960: 70_000, 1920: 210_000}  # pixels: bytes
_BUNDLES = {"app": 310_000, "framework": 140_000, "polyfill": 92_000, "webpack-runtime": 6_000}
_COMPONENTS = 20
_TEXTS = (".html", ".htm", ".css", ".js", ".json", ".xml", ".txt", ".md")
_VOCABULARY = (
    "anchor bay beacon berth bilge boat bow bridge buoy cabin cable canal cargo chart cleat "
    "coast compass course crane crew current deck dock drift ebb ferry fleet flood fog foghorn "
    "galley gangway harbour hatch haul helm hull island jetty keel knot ladder lantern launch "
    "lighthouse lock mast mooring morning oar pier pilot port quay raft reef rope rudder sail "
    "shore stern tide wharf winch"
)
_WORDS = _VOCABULARY.split()
assert len(_WORDS) == 64  # so that a byte names a word without preferring any


def make_versions(first: Path, second: Path, source: Source | None) -> list[str]:
    """Version A of a site and version B, with one page edited: our own site, or a copy of `source`,
    which is only read. Returns the edited paths. What both have in common are hard links."""
    if source is None:
        make_site(first)
    else:
        shutil.copytree(source.root, first, symlinks=True)
    shutil.copytree(first, second, symlinks=True, copy_function=os.link)
    return edit_page(second) if source is None else [edit_text(second, source.manifest)]


def make_site(site_dir: str | os.PathLike[str], pages: int = PAGES) -> None:
    """Write the site into `site_dir`, which must not exist."""
    root = Path(site_dir)
    for path, content in _files(pages):
        _write(root, path, content)


def edit_page(site_dir: str | os.PathLike[str]) -> list[str]:
    """Add a sentence to one page, as a rebuild would: its HTML and its page data change, nothing
    else. Returns the two paths, relative to `site_dir`."""
    root = Path(site_dir)
    data = min((root / "page-data").glob("*/*/page-data.json"))
    slug = data.parent.relative_to(root / "page-data")
    page = root / slug / "index.html"
    sentence = "<p>Corrected: the ferry leaves at nine.</p>\n"
    text = page.read_text(encoding="ascii")
    fields = json.loads(data.read_bytes())
    fields["result"]["data"]["html"] += sentence
    edited = {
        page: text.replace("</article>", f"{sentence}</article>", 1).encode("ascii"),
        data: _json(fields),
    }
    for file, content in edited.items():
        file.unlink()  # it may be a hard link
        _write(root, str(file.relative_to(root)), content)
    return [str(file.relative_to(root)) for file in edited]


def edit_text(site_dir: str | os.PathLike[str], manifest: Manifest) -> str:
    """Add an empty line to one file of any site, to a page when there is one; returns its path."""
    entry = min(manifest.files, key=lambda entry: (_text_rank(entry), entry.path))
    file = Path(site_dir) / os.fsdecode(entry.path)
    content = file.read_bytes()
    file.unlink()  # it may be a hard link
    file.write_bytes(content + b"\n")
    file.chmod(entry.mode)
    return entry.shown


def _text_rank(entry: Entry) -> int:
    ending = os.path.splitext(os.fsdecode(entry.path))[1].lower()
    return _TEXTS.index(ending) if ending in _TEXTS else len(_TEXTS)


# -- what the site holds --------------------------------------------------------------------------


def _files(pages: int) -> Iterator[tuple[str, bytes]]:
    """Path and content of every file."""
    scripts = dict(_scripts())
    yield from scripts.items()
    slugs = [_slug(number) for number in range(pages)]
    pictures = [_picture(number) for number in range(-(-pages // PAGES_PER_PICTURE))]
    for picture in pictures:
        for width, size in _WIDTHS.items():
            yield f"{picture}-{width}.jpg", _jpeg(f"{picture}-{width}", size)
    for number, slug in enumerate(slugs):
        words = _page_words(slug)
        picture = pictures[number // PAGES_PER_PICTURE]
        yield f"{slug}/index.html", _html(slug, words, picture, list(scripts))
        yield f"page-data/{slug}/page-data.json", _page_data(slug, words, picture)
    yield "index.html", _html("", _page_words("index"), pictures[0], list(scripts))
    yield "page-data/index/page-data.json", _page_data("", _page_words("index"), pictures[0])
    yield "page-data/app-data.json", _json({"webpackCompilationHash": _hash("webpack", 20)})
    yield "robots.txt", b"User-agent: *\nAllow: /\nSitemap: https://www.example.com/sitemap-0.xml\n"
    yield "sitemap-0.xml", _sitemap(slugs)


def _scripts() -> Iterator[tuple[str, bytes]]:
    """Bundles of script and style: text that compresses as such text does."""
    for name, size in _BUNDLES.items():
        yield f"{name}-{_hash(name, 20)}.js", _script(name, size)
    for number in range(_COMPONENTS):
        name = f"component---src-templates-{_WORDS[number]}-js"
        yield f"{name}-{_hash(name, 20)}.js", _script(name, 9_000 + 1_700 * number)
    yield f"styles.{_hash('styles', 20)}.css", _script("styles", 88_000)


def _slug(number: int) -> str:
    first, second = (_WORDS[byte & 63] for byte in _bytes(f"slug/{number}", 2))
    return f"{_SECTIONS[number % len(_SECTIONS)]}/{first}-{second}-{number:04}"


def _picture(number: int) -> str:
    """The path of a picture without its width."""
    name = _WORDS[_bytes(f"picture/{number}", 1)[0] & 63]
    return f"static/{_hash(f'picture/{number}', 32)}/{name}"


def _page_words(slug: str) -> list[str]:
    """The paragraphs of a page."""
    chosen = _bytes(f"page/{slug}", PARAGRAPHS * WORDS_PER_PARAGRAPH)
    words = [_WORDS[byte & 63] for byte in chosen]
    return [
        " ".join(words[start : start + WORDS_PER_PARAGRAPH])
        for start in range(0, len(words), WORDS_PER_PARAGRAPH)
    ]


def _title(slug: str) -> str:
    return slug.rpartition("/")[2].replace("-", " ").capitalize() or "Home"


def _url(slug: str) -> str:
    return f"{_HOST}/{slug}/" if slug else f"{_HOST}/"


def _body(paragraphs: list[str]) -> str:
    return "".join(f"<p>{text.capitalize()}.</p>\n" for text in paragraphs)


def _html(slug: str, paragraphs: list[str], picture: str, scripts: list[str]) -> bytes:
    title = _title(slug)
    links = "".join(f'<link rel="preload" as="script" href="/{name}"/>\n' for name in scripts[:6])
    sources = ", ".join(f"/{picture}-{width}.jpg {width}w" for width in _WIDTHS)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8"/>\n'
        f'<title>{title}</title>\n<link rel="canonical" href="{_url(slug)}"/>\n'
        f'{links}</head>\n<body>\n<div id="___gatsby">\n<article>\n<h1>{title}</h1>\n'
        f'<img alt="{title}" srcset="{sources}"/>\n{_body(paragraphs)}</article>\n</div>\n'
        f'<script src="/{scripts[0]}" async></script>\n</body>\n</html>\n'
    ).encode("ascii")


def _page_data(slug: str, paragraphs: list[str], picture: str) -> bytes:
    data = {"title": _title(slug), "html": _body(paragraphs), "image": f"/{picture}-960.jpg"}
    return _json(
        {
            "componentChunkName": "component---src-templates-anchor-js",
            "path": _url(slug).removeprefix(_HOST),
            "result": {"data": data, "pageContext": {"slug": slug}},
            "staticQueryHashes": [str(int(_hash(f"query/{slug}", 8), 16))],
        }
    )


def _script(name: str, size: int) -> bytes:
    """`size` bytes that look like a minified script."""
    chosen = _bytes(f"script/{name}", size // 6)
    text = "".join(
        f"{_WORDS[byte & 63]}{('()', '{}', ';,', '=.')[byte >> 6]}{byte:x}" for byte in chosen
    ).encode("ascii")
    return text[:size]


def _jpeg(name: str, size: int) -> bytes:
    """As compressible as a JPEG, and marked as one: three quarters of `size` up to five."""
    more = int.from_bytes(_bytes(f"{name}/size", 4), "big") % (size // 2)
    content = _bytes(name, size * 3 // 4 + more)
    return b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01" + content + b"\xff\xd9"


def _sitemap(slugs: list[str]) -> bytes:
    urls = "".join(f"<url><loc>{_url(slug)}</loc></url>\n" for slug in slugs)
    return f'<?xml version="1.0"?>\n<urlset>\n{urls}</urlset>\n'.encode("ascii")


def _json(fields: object) -> bytes:
    return json.dumps(fields, separators=(",", ":"), sort_keys=True).encode("ascii")


def _bytes(name: str, size: int) -> bytes:
    """The bytes that belong to `name`: at 400 MB/s, and the same for ever."""
    return hashlib.shake_128(f"moorline site 1: {name}".encode("ascii")).digest(size)


def _hash(name: str, digits: int) -> str:
    return _bytes(f"hash/{name}", digits // 2).hex()


# -- writing it -----------------------------------------------------------------------------------


def _write(root: Path, path: str, content: bytes) -> None:
    file = root / path
    _make_directory(file.parent)
    file.write_bytes(content)
    file.chmod(0o644)


def _make_directory(directory: Path) -> None:
    """`directory` and what is missing above it, with the mode that every umask would allow."""
    if not directory.is_dir():
        _make_directory(directory.parent)
        directory.mkdir()
        directory.chmod(0o755)
