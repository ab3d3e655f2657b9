"""Whose published nets a model is made from, and the notice that their licences want to go with it."""

from collections.abc import Sequence
from dataclasses import dataclass

NOTICE_FILE = "NOTICE"
NUMBERS = ("no", "a", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LICENCES = {
    "MIT": """\
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated documentation
files (the "Software"), to deal in the Software without restriction, including without limitation the rights to use, copy,
modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit persons to whom the
Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE,
ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
""",  # noqa: E501
    "ISC": """\
Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted,
provided that the above copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED
WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR
CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF
CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
""",  # noqa: E501
}


@dataclass(frozen=True)
class Source:
    """A published net that a front starts from."""

    net: str  # its name and its address
    copyright: str  # the line of its authors
    licence: str  # of LICENCES
    remark: str = ""  # what else is to be said of what was taken from there, in whole lines


def notice_of(sources: Sequence[Source]) -> str:
    """The text that goes with a model of these: their copyright lines and licences; "" for none."""
    return "\n".join(
        _under(licence, [source for source in sources if source.licence == licence])
        for licence in dict.fromkeys(source.licence for source in sources)
    )


def notice_before(sources: Sequence[Source], there: str) -> str:
    """That text before what else a notice says; "" for nothing."""
    asked = notice_of(sources)
    return there if asked in there else "\n".join(filter(None, [asked, there]))


def _under(licence: str, sources: Sequence[Source]) -> str:
    nets = dict.fromkeys((source.net, source.copyright) for source in sources)  # two fronts may take parts of one
    several, each = ("s", "each ") if len(nets) > 1 else ("", "")
    return "\n".join(
        [
            f"The convolutions of this model are trained further from {NUMBERS[len(nets)]} published network{several}, "
            f"{each}under the {licence} licence:\n",
            *(f"    {net}\n    {copyright_}\n" for net, copyright_ in nets),
            *dict.fromkeys(source.remark for source in sources if source.remark),
            LICENCES[licence],
        ]
    )
