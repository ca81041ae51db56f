"""Write the content of the example site: posts as JSON, images as PNG.

The same seed gives the same bytes on every machine. Nothing here reads the
clock, and the PNGs do not depend on the version of zlib (see `stored`).
"""

import colorsys
import datetime
import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

SEED = "moorline"
POST_COUNT = 3000
IMAGE_COUNT = 1500
IMAGE_WIDTH_PX = 640
FIRST_DAY = datetime.date(2017, 3, 1)

Post = dict[str, Any]  # one file of content/posts, as JSON

# fmt: off
AUTHORS = ["Ada Lindqvist", "Tom Farrell", "Ines Moreau", "Jonas Brandt", "Ruth Okafor"]
TAGS = ["rope", "canvas", "hardware", "weather", "repairs", "harbour", "tools", "winter"]
ITEMS = [
    "mooring line", "bowline", "splicing fid", "brass cleat", "canvas bag", "oil lamp",
    "anchor chain", "snatch block", "rope fender", "boat hook", "deck brush", "storm jib",
    "hemp hawser", "signal flag", "tide table", "copper rivet", "oak thole pin", "bilge pump",
]
QUALITIES = [
    "worn", "new", "spare", "borrowed", "well-kept", "tarred", "short", "long", "second-hand",
]
PLACES = [
    "on the north quay", "behind the shop", "in the outer harbour", "at the slipway",
    "under the crane", "beside the chandler's bench", "off the breakwater", "in the loft",
]
PEOPLE = [
    "We", "A customer", "The harbour master", "Two fishermen", "Our apprentice", "The ferry crew",
]
DEEDS = [
    "tested", "repaired", "sold", "measured", "weighed", "photographed", "dried", "oiled",
    "carried home", "compared", "hung up", "took apart",
]
ENDINGS = [
    ", and it held through the night", " before the wind turned", " while the rain lasted",
    ", which took longer than planned", " and wrote down the figures",
    " for the third time this year", " and would do it again",
    " because the last one had chafed through", " at half the usual price",
]
TITLES = [
    "How to choose a {quality} {item}", "The {quality} {item} {place}",
    "A {quality} {item}, one year on", "What a {quality} {item} is worth",
    "Mending a {quality} {item} {place}", "Notes on the {quality} {item}",
]
# fmt: on


def generate(site: Path) -> None:
    """Write content/posts and static/images below `site`."""
    posts = [make_post(number) for number in range(1, POST_COUNT + 1)]
    add_related(posts)
    (site / "content/posts").mkdir(parents=True)
    for post in posts:
        write_post(site, post)
    (site / "static/images").mkdir(parents=True)
    for number in range(1, IMAGE_COUNT + 1):
        write_image(site, image_name(number))


def write_post(site: Path, post: Post) -> None:
    text = json.dumps(post, indent=2, ensure_ascii=False) + "\n"
    post_file(site, post["slug"]).write_text(text, encoding="utf-8")


def write_image(site: Path, name: str) -> None:
    (site / "static/images" / name).write_bytes(make_png(name))


def post_file(site: Path, slug: str) -> Path:
    return site / "content/posts" / f"{slug}.json"


def image_name(number: int) -> str:
    return f"photo-{number:04d}.png"


def random_for(kind: str, name: object) -> random.Random:
    """A generator of its own for every thing, so adding one leaves all others as they are."""
    return random.Random(f"{SEED}/{kind}/{name}")


def make_post(number: int) -> Post:
    rng = random_for("post", number)
    title = rng.choice(TITLES).format(
        quality=rng.choice(QUALITIES), item=rng.choice(ITEMS), place=rng.choice(PLACES)
    )
    return {
        "number": number,
        "slug": f"{slugify(title)}-{number:04d}",
        "title": title,
        "date": (FIRST_DAY + datetime.timedelta(days=number)).isoformat(),
        "author": rng.choice(AUTHORS),
        "tags": sorted(rng.sample(TAGS, 2)),
        "images": make_figures(rng, number),
        "paragraphs": [make_paragraph(rng) for _ in range(rng.randint(5, 12))],
        "related": [],
    }


def make_figures(rng: random.Random, number: int) -> list[dict[str, str]]:
    """Every image is in two posts or more; every third post shows a second one."""
    first = (number - 1) % IMAGE_COUNT + 1
    shown = [first] if number % 3 else [first, first % IMAGE_COUNT + 1]
    return [
        {"file": image_name(image), "caption": f"The {rng.choice(ITEMS)}, {rng.choice(PLACES)}"}
        for image in shown
    ]


def make_paragraph(rng: random.Random) -> str:
    return " ".join(make_sentence(rng) for _ in range(rng.randint(3, 7)))


def make_sentence(rng: random.Random) -> str:
    return (
        f"{rng.choice(PEOPLE)} {rng.choice(DEEDS)} the {rng.choice(QUALITIES)} {rng.choice(ITEMS)}"
        f" {rng.choice(PLACES)}{rng.choice(ENDINGS)}."
    )


def add_related(posts: list[Post]) -> None:
    """Four links a post, to any of the others."""
    for post in posts:
        others = random_for("related", post["number"]).sample(posts, 5)
        post["related"] = [other["slug"] for other in others if other is not post][:4]


def slugify(title: str) -> str:
    kept = "".join(letter if letter.isalnum() else " " for letter in title.lower().replace("'", ""))
    return "-".join(kept.split())


def make_png(name: str) -> bytes:
    """A grainy swatch in one colour; like a photograph, it does not compress. 150 to 390 KB."""
    rng = random_for("image", name)
    width, height = IMAGE_WIDTH_PX, rng.randint(240, 600)
    pixels = rng.randbytes(width * height)
    rows = b"".join(b"\0" + pixels[at : at + width] for at in range(0, len(pixels), width))
    indexed_8_bit = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", indexed_8_bit)
        + png_chunk(b"PLTE", palette(rng.random()))
        + png_chunk(b"IDAT", stored(rows))
        + png_chunk(b"IEND", b"")
    )


def palette(hue: float) -> bytes:
    """256 shades of one hue, dark to light."""
    shades = (colorsys.hls_to_rgb(hue, 0.3 + 0.4 * step / 255, 0.35) for step in range(256))
    return bytes(round(255 * part) for shade in shades for part in shade)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def stored(data: bytes) -> bytes:
    """`data` as a zlib stream of stored blocks.

    Spelled out, because what a compressor emits differs from one version to the next.
    """
    blocks = [data[at : at + 0xFFFF] for at in range(0, len(data), 0xFFFF)]
    framed = b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block
        for block in blocks
    )
    return b"\x78\x01" + framed + struct.pack(">I", zlib.adler32(data))


if __name__ == "__main__":
    generate(Path(__file__).parent)
