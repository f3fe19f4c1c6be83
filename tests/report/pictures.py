"""What the tests of pictures share."""

from __future__ import annotations

import struct

import matplotlib

ODD_NAMES = [
    *("$x_1$", "a$b", "under_score", "日本語", "नमस्ते", "😀", "two\nlines", "", "\ud800", "\\frac{"),
    "very long " * 500,
]


def size(png):
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert png.endswith(b"IEND\xaeB`\x82")
    return struct.unpack(">II", png[16:24])


def words(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def assert_nothing_cut_off(figure):
    figure.canvas.draw()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert 0 <= box.x0 < box.x1 <= width
    assert 0 <= box.y0 < box.y1 <= height
