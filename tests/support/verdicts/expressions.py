"""Roots, powers, units, times of day and other short expressions."""

# The correct answer; responses that give it; responses that do not.
ROWS: list[tuple[str, list[str], list[str]]] = [
    (r"25\pi", [r"$25\pi$ cm^2", r"The area is $25\pi$ cm^2."], [r"$5\pi$ cm^2"]),
    (
        "3 1/2",
        [
            "3.5", r"\boxed{\frac72}", "7/2", "3½",
        ],
        [
            "31/2", "1/2", "3",
        ],
    ),
    (
        "5 cm",
        [
            "5 cm", "5 centimeters", r"\boxed{5 \text{ cm}}", "0.05 m", "5",
        ],
        [
            "5 m", "5 mm", "5 inches",
        ],
    ),
    (
        "60 km/h",
        [
            "60 km/h", "60 km per hour", "60 kilometers per hour", "60",
        ],
        [
            "60 m/s", "60 km", "60 km/s",
        ],
    ),
    (
        r"90^\circ",
        [
            "90°", "90", "90 degrees", r"\boxed{90^{\circ}}",
        ],
        [
            "45°", r"\boxed{9^\circ}",
        ],
    ),
    (
        "11:00 AM",
        [
            "11:00 AM", "11:00 a.m.", "11 AM", r"\boxed{11:00\text{ AM}}",
            "The answer is 11:00 am.", "**11:00 AM**", "It leaves at 11:00 AM.", "11:00",
        ],
        [
            "11:00 PM", r"\boxed{11:00 \text{ PM}}", "10:00 AM", "23:00", "11:30 AM",
            "It leaves at 11:00 PM.",
        ],
    ),
    (
        "3:45 PM",
        [
            "3:45 pm", "15:45", r"\boxed{3:45\text{ p.m.}}",
        ],
        [
            "3:45 am", "3:54 PM",
        ],
    ),
    (
        "1024_5",
        [
            "1024_5", r"\boxed{1024_5}", r"\boxed{1024_{5}}", "$1024_5$", "1024 (base 5)", "1024",
        ],
        [
            "1024_6", r"\boxed{1024_6}", r"\boxed{1025_5}", "1024 (base 6)",
        ],
    ),
    (
        "1/2^98",
        [
            "1/2^98", r"\boxed{1/2^{98}}",
        ],
        [
            "1/2^99", r"\boxed{1/2^{99}}",
        ],
    ),
    (
        "CAB",
        [
            r"\boxed{CAB}", r"\boxed{\text{CAB}}", "The answer is CAB.", "The answer is **CAB**.",
            "CAB", "**CAB**",
        ],
        [
            r"\boxed{ABC}", r"\boxed{BCA}", "The answer is ABC.", "ACB", r"\boxed{\text{ABC}}",
        ],
    ),
    (
        "no",
        [
            r"\boxed{no}", r"\boxed{\text{no}}", r"\boxed{\text{No}}", "The answer is no.",
            "Answer: **No**",
        ],
        [
            r"\boxed{on}", r"\boxed{\text{on}}", "The answer is yes.", r"\boxed{\text{yes}}",
        ],
    ),
    (
        "on",
        [
            r"\boxed{on}", r"\boxed{\text{on}}",
        ],
        [
            r"\boxed{no}", "The answer is no.",
        ],
    ),
    (
        "xy",
        [
            r"\boxed{xy}", r"\boxed{yx}", r"\boxed{x \cdot y}", "x*y",
        ],
        [
            r"\boxed{x+y}", r"\boxed{xz}",
        ],
    ),
    (
        "x + 1",
        [
            "x + 1", r"\boxed{x+1}", r"\boxed{1 + x}", "$x + 1$", "**$x + 1$**",
            "The answer is x + 1.", "Answer: 1 + x",
        ],
        [
            "x - 1", "1", r"\boxed{x}", "y + 1",
        ],
    ),
    (
        "x^2 + 3x",
        [
            r"\boxed{x^2+3x}", "x^2 + 3x", r"\boxed{x(x+3)}", "x**2 + 3*x", "x² + 3x",
            "$3x + x^2$",
        ],
        [
            r"\boxed{x^2+3}", "x^3 + 3x",
        ],
    ),
    (
        r"2\sqrt{2}",
        [
            r"\boxed{2\sqrt{2}}", r"\boxed{\sqrt8}", "2√2", r"$2\sqrt2$", "2*sqrt(2)",
            r"**$2\sqrt{2}$**",
        ],
        [
            r"\boxed{\sqrt2}", "2", r"\boxed{4}",
        ],
    ),
    (
        r"2\pi",
        [
            r"\boxed{2\pi}", "2π", "2*pi", r"$2\pi$", "The answer is 2π.",
        ],
        [
            "2", r"\boxed{\pi}", "6.28",
        ],
    ),
    (
        "$18",
        [
            "$18", "18", r"\$18", "18 dollars", "$18.00", "**$18**", r"\boxed{\$18}",
            "The total is $18.", r"\boxed{18}", "1800 cents", "**Answer:** $18",
        ],
        [
            "18 cents", "€18", "$1.80", "$81",
        ],
    ),
    (
        "3:2",
        [
            "3:2", r"\boxed{3:2}", "**3:2**", "3 : 2", "3 to 2", r"\boxed{3 : 2}",
            r"\boxed{3\text{ to }2}", "3/2",
        ],
        [
            "2:3", r"\boxed{2:3}",
        ],
    ),
    (
        r"\pm 2",
        [
            r"\boxed{\pm 2}", "±2", r"\boxed{2, -2}", "x = ±2", r"\boxed{-2, 2}",
        ],
        [
            "2", "-2",
        ],
    ),
    (
        "11:00",
        [
            "11:00", r"\boxed{11:00}",
        ],
        [],
    ),
    (
        "p - q",
        [
            "p - q", "p−q", r"\boxed{p-q}", "-q+p",
        ],
        [
            "q - p", "p+q",
        ],
    ),
    (
        "6 - 5i",
        [
            "6 - 5i", "6−5i", r"\boxed{6-5i}", "-5i+6",
        ],
        [
            "6+5i", "6",
        ],
    ),
    (
        "100 m",
        [
            "100 m", "100 meters", "0.1 km", "100m",
        ],
        [
            "100 km", "100 mm", "100 s",
        ],
    ),
    (
        "5 kg",
        [
            "5 kg", "5000 g", "5kg", "5 kilograms", "5",
        ],
        [
            "5 g", "5 lb", "5 km",
        ],
    ),
    (
        "AB",
        [
            "AB", r"\boxed{AB}",
        ],
        [],
    ),
    (
        "3x^2",
        [
            "3x^2", "3x²", r"\boxed{3x^2}", "3*x**2", "3 x^2",
        ],
        [],
    ),
    (
        "2, 2, 3",
        [],
        [
            "2,3", r"\boxed{2,3}", "2 and 3",
        ],
    ),
    (
        "AC",
        [],
        [
            "CA",
        ],
    ),
    (
        "PQR",
        [],
        [
            r"\boxed{RPQ}", "QPR",
        ],
    ),
    (
        "was",
        [],
        [
            r"\boxed{saw}",
        ],
    ),
    (
        "101_2",
        [
            "101_2", "101_{2}", "$101_2$", r"\boxed{101_2}",
        ],
        [
            "101_3", r"\boxed{101_{10}}",
        ],
    ),
    (
        "5 AM",
        [],
        [
            "5 PM",
        ],
    ),
    (
        "12:30 PM",
        [
            "12:30 PM", "12:30 p.m.",
        ],
        [
            "12:30 AM",
        ],
    ),
    (
        r"\infty",
        [
            r"\infty", "∞", "infinity", r"\boxed{\infty}", r"+\infty",
        ],
        [
            r"-\infty", "0",
        ],
    ),
    (
        r"\ln 2",
        [
            "ln 2", "ln(2)", r"\ln 2", r"\boxed{\ln 2}", r"$\ln(2)$",
        ],
        [],
    ),
    (
        "3+4i",
        [
            "3+4i", "3 + 4i", "4i + 3", r"\boxed{3+4i}",
        ],
        [
            "3-4i", "7",
        ],
    ),
    (
        "9.8 m/s^2",
        [
            "9.8 m/s²", "9.8 m/s^2", r"9.8 \text{ m/s}^2", "9.8 meters per second squared", "9.8",
        ],
        [
            "9.8 m/s", "9.8 cm/s^2",
        ],
    ),
    (
        "$5",
        [
            "5 dollars", "$5.00", "5", "USD 5", "5 USD",
        ],
        [
            "5 cents", "£5", "5 euros",
        ],
    ),
    (
        "7:30 AM",
        [
            "7:30 AM", "7:30 am", "07:30 AM", "7:30a.m.",
        ],
        [
            "7:30 PM", "7:30 in the evening", "19:30",
        ],
    ),
    (
        "BAC",
        [],
        [
            "CAB", r"\boxed{\text{CAB}}", "ABC",
        ],
    ),
    (
        "is",
        [],
        [
            "si",
        ],
    ),
    (
        "ab",
        [
            "ab", r"\boxed{ab}", "ba", "a*b",
        ],
        [],
    ),
    (
        "101101_2",
        [],
        [
            "101101_3", "101101_{8}",
        ],
    ),
    (
        "FF_{16}",
        [
            "FF_{16}", "ff_{16}",
        ],
        [
            "FF_{15}", "FE_{16}",
        ],
    ),
    (
        "10^{-9}",
        [
            "10^{-9}", "1e-9", "0.000000001", r"1 \times 10^{-9}",
        ],
        [
            "10^{-10}", r"2\times10^{-9}", "0",
        ],
    ),
    (
        "1, 2, 3",
        [
            "3,2,1", "1, 2, and 3", "1,2,3", "{1,2,3}",
        ],
        [],
    ),
    (
        "x^2",
        [
            "x^2", "x²", r"\boxed{x^{2}}", "x**2", "x·x", "x*x",
        ],
        [
            "2x", "x_2", "x^3",
        ],
    ),
    (
        "25^\\circ",
        ["We get $25$ degrees", "We get $25^\\circ$ here"],
        ["We get $26$ degrees", "We get $25$ dollars"],
    ),
    ("$7", ["It is $7 and not more", "From $5 it went to $7 at last"], []),
    ("5!", ["5!", "\\boxed{5!}", "120"], ["4!"]),
    ("2x^2 - 3x", ["$$\n2x^2\n- 3x\n$$", "\\boxed{2x^2\n- 3x}"], ["$$\n2x^2\n+ 3x\n$$"]),
    (
        "2\\sqrt{3}",
        ["The answer is 2√3.", "It is 2√3 cm.", "It is 2√3."],
        ["It is 3√2 cm.", "It is √3.", "The answer is 3."],
    ),
    (
        "$5",
        [
            "It costs $5 in all.",
            "It costs $5$ dollars in all.",
            "We paid $5, and $x$ is 3? No: the price is $5 in total.",
            "It costs $\\$5$ in all.",
        ],
        ["It costs €5 in all.", "We need $5$ cm here."],
    ),
    (
        "\\sqrt{3}",
        [
            "So it is √3.",
            "It equals √3, exactly",
            "The length is √3 m.",
            "The length is $\\sqrt{3}$ m.",
        ],
        ["It is √3 + 1."],
    ),
    (
        "1+\\sqrt{2}",
        ["It is 1 + √2.", "So we get 1+√2, as was to be shown."],
        ["It is 1 - √2.", "It is √2."],
    ),
    ("3x-2", ["\\[\n3x\n- 2\n\\]"], []),
    ("42!!", [r"\boxed{42!!}"], [r"\boxed{42!}", r"\boxed{41!!}"]),
]  # fmt: skip
