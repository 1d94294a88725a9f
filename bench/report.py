"""The figures as Markdown tables and as one SVG chart of the ratios to Orthanc, with the aims as lines."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from xml.sax.saxutils import escape

from bench import retrieve
from bench.peers import Orthanc, OrthancLedger
from bench.store import Huge, Rates

ACKNOWLEDGED, ANCHORED = "acknowledged", "anchored"
AIMS = {ACKNOWLEDGED: 2.0, ANCHORED: 1.0, retrieve.OURS_CLINICAL: 1.0, retrieve.OURS_RESEARCH: 0.5}
"""Ratios to Orthanc that are aimed at. They are reported, not asserted."""

_COLOURS = {ACKNOWLEDGED: "#2b6cb0", ANCHORED: "#c05621"}
_OTHER_COLOUR = "#2f855a"
_LEFT, _WIDTH, _ROW, _TOP, _BOTTOM, _RIGHT = 370, 480, 26, 64, 44, 130


@dataclass(frozen=True)
class Ratio:
    """One of our rates over the median of Orthanc's: the median, the lowest and the highest repeat; and its aim."""

    label: str
    kind: str
    middle: float
    lowest: float
    highest: float

    @property
    def aim(self) -> float:
        return AIMS[self.kind]


def ratio(label: str, kind: str, ours: Sequence[float], orthanc: Sequence[float]) -> Ratio:
    """Our rates over Orthanc's in one scenario."""
    base = median(orthanc)
    return Ratio(label, kind, median(ours) / base, min(ours) / base, max(ours) / base)


def store_ratios(scenario: str, rates: Rates) -> list[Ratio]:
    """Ours over Orthanc: acknowledged, and anchored over what Orthanc acknowledges."""
    ours, orthanc = OrthancLedger.name, rates.acknowledged[Orthanc.name]
    return [
        ratio(f"{scenario}: {ACKNOWLEDGED}", ACKNOWLEDGED, rates.acknowledged[ours], orthanc),
        ratio(f"{scenario}: {ANCHORED}", ANCHORED, rates.anchored[ours], orthanc),
    ]


def retrieve_ratios(rates: Mapping[str, Sequence[float]]) -> list[Ratio]:
    """Ours over Orthanc: as clinical and as research peer."""
    return [
        ratio(f"C-GET: {who.removeprefix(f'{OrthancLedger.name}, ')}", who, rates[who], rates[Orthanc.name])
        for who in (retrieve.OURS_CLINICAL, retrieve.OURS_RESEARCH)
    ]


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows with the same keys as a Markdown table."""
    if not rows:
        return ""
    lines = [rows[0].keys(), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines) + "\n"


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|")


def store_table(rates: Rates) -> str:
    """Every peer's rates in one scenario."""
    base, rows = rates.acknowledged[Orthanc.name], []
    for peer, acknowledged in rates.acknowledged.items():
        anchored = rates.anchored.get(peer)
        rows.append(
            {
                "peer": peer,
                "acknowledged/s": spread(acknowledged),
                "÷ Orthanc": times(acknowledged, base),
                "anchored/s": spread(anchored) if anchored else "–",
                "÷ Orthanc's acknowledged": times(anchored, base) if anchored else "–",
            }
        )
    return table(rows)


def retrieve_table(rates: Mapping[str, Sequence[float]]) -> str:
    """Everybody's C-GET rates."""
    base = rates[Orthanc.name]
    rows = [
        {"from": who, "objects/s": spread(values), "÷ Orthanc": times(values, base), "for each": retrieve.DOES[who]}
        for who, values in rates.items()
    ]
    return table(rows)


def huge_table(size: int, found: Mapping[str, Huge]) -> str:
    """What one huge object took at each peer; MB are 10^6 bytes."""
    rows = [
        {
            "peer": peer,
            "acknowledged, MB/s": f"{size / 1e6 / huge.acknowledged_s:,.0f}",
            "anchored, MB/s": f"{size / 1e6 / huge.anchored_s:,.0f}" if huge.anchored_s else "–",
            "peak RSS of its largest process, MB": f"{huge.largest_process / 1e6:,.0f}",
            "of all its processes, MB": f"{huge.all_processes / 1e6:,.0f}",
        }
        for peer, huge in found.items()
    ]
    return table(rows)


def aims_table(ratios: Iterable[Ratio]) -> str:
    """Each aim beside what was reached."""
    rows = [
        {
            "ours ÷ Orthanc": each.label,
            "aim": f"{each.aim:g}×",
            "median (min–max)": f"{each.middle:.2f}× ({each.lowest:.2f}–{each.highest:.2f})",
            "reached": "yes" if each.middle >= each.aim else "no",
        }
        for each in ratios
    ]
    return table(rows)


def spread(values: Sequence[float]) -> str:
    """Median, lowest and highest."""
    return f"{median(values):,.0f} ({min(values):,.0f}–{max(values):,.0f})"


def times(values: Sequence[float], base: Sequence[float]) -> str:
    """The ratio of two medians."""
    return f"{median(values) / median(base):.2f}×"


def chart(ratios: Sequence[Ratio], caption: str) -> str:
    """An SVG: a bar for each ratio, a thin line from lowest to highest repeat, and a black mark at its aim."""
    most = max(max(each.highest, each.aim) for each in ratios) * 1.05
    height, bottom = _TOP + _ROW * len(ratios) + _BOTTOM, _TOP + _ROW * len(ratios)

    def x(value: float) -> float:
        return _LEFT + value / most * _WIDTH

    step = 0.5 if most <= 5 else 1.0
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + _RIGHT} {height}" '
        'font-family="sans-serif" font-size="13">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="24" font-size="16" font-weight="bold">{escape(OrthancLedger.name)}, times Orthanc</text>',
        f'<text x="12" y="44" fill="#555">{escape(caption)}</text>',
    ]
    for number in range(int(most / step) + 1):
        value = number * step
        colour = "#555" if value == 1 else "#ddd"
        parts.append(f'<path d="M{x(value):.1f} {_TOP - 6}V{bottom}" stroke="{colour}"/>')
        parts.append(f'<text x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}×</text>')
    for number, each in enumerate(ratios):
        top = _TOP + _ROW * number
        middle = top + _ROW / 2 - 2
        colour = _COLOURS.get(each.kind, _OTHER_COLOUR)
        parts += [
            f'<text x="{_LEFT - 8}" y="{middle + 5}" text-anchor="end">{escape(each.label)}</text>',
            f'<rect x="{_LEFT}" y="{top + 2}" width="{x(each.middle) - _LEFT:.1f}" height="{_ROW - 8}" '
            f'fill="{colour}"/>',
            f'<path d="M{x(each.lowest):.1f} {middle}H{x(each.highest):.1f}" stroke="#999" stroke-width="2"/>',
            f'<path d="M{x(each.aim):.1f} {top - 1}V{top + _ROW - 3}" stroke="black" stroke-width="3"/>',
            f'<text x="{_LEFT + _WIDTH + 10}" y="{middle + 5}">{each.middle:.2f}× (aim {each.aim:g}×)</text>',
        ]
    parts += [
        f'<text x="{_LEFT}" y="{bottom + 36}" fill="#555">black mark: the aim; line: Orthanc = 1×</text>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"
