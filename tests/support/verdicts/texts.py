"""Words, and numbers with words."""

# The correct answer; responses that give it; responses that do not.
ROWS: list[tuple[str, list[str], list[str]]] = [
    (
        r"5 \text{ m}",
        [
            "5 m", "5 meters", "5 metres", "5m", r"\boxed{5\text{ m}}", r"\boxed{5 \mathrm{m}}",
            "**5 m**", "5", "The answer is 5 meters.", "500 cm", r"\boxed{500\text{ cm}}",
            "It is 5 m long.", r"\boxed{5\,\text{m}}", "0.005 km",
        ],
        [
            "5 cm", "5 km", r"\boxed{5\text{ cm}}", "The answer is 5 cm.", "**5 cm**", "50 m",
            "5 seconds", "5 cm long", "It is 5 km.",
        ],
    ),
    (
        r"12\text{ cm}^2",
        [
            r"\boxed{12\text{ cm}^2}", "12 cm²", "12 square cm", r"12 \mathrm{cm}^{2}", "12",
        ],
        [
            "12 cm", r"\boxed{12\text{ cm}^3}", "12 m²",
        ],
    ),
    (
        r"20^\circ\text{C}",
        [
            "20 °C", "20°C", r"\boxed{20^\circ\text{C}}", "20",
        ],
        [
            "20 °F", "25 °C",
        ],
    ),
    (
        r"\text{east}",
        [
            r"\boxed{\text{east}}", r"\boxed{\text{East}}", r"\boxed{east}", "The answer is east.",
            "**Answer:** East", "east", "Antwort: east",
        ],
        [
            r"\boxed{\text{west}}", "The answer is west.", r"\boxed{\text{northeast}}", "seat",
        ],
    ),
    (
        "True",
        [
            r"\boxed{True}", r"\boxed{\text{true}}", "The answer is True.",
        ],
        [
            r"\boxed{False}", r"\boxed{\text{Yes}}",
        ],
    ),
    (
        r"\text{Evelyn}",
        [
            "Evelyn", r"\boxed{\text{Evelyn}}", "The answer is Evelyn.", "**Evelyn**",
            "The answer is **Evelyn**", r"\boxed{Evelyn}",
        ],
        [
            "Briana", r"\boxed{\text{Carla}}",
        ],
    ),
    (
        "2 hours",
        [
            "2 hours", "2 h", "120 minutes", "2 hrs", "2",
        ],
        [
            "2 minutes", "2 days", "2 seconds",
        ],
    ),
    (
        "36 square meters",
        [
            "36 m^2", "36 m²", "36 square meters", r"36 \text{ m}^2", "36", "36 sq m",
        ],
        [
            "36 m", "36 cm^2", "36 cubic meters",
        ],
    ),
    (
        r"\text{March 5}",
        [
            "March 5", r"\boxed{\text{March 5}}", "**March 5**", "The answer is March 5.",
            r"\boxed{March 5}",
        ],
        [
            "March 6", r"\boxed{\text{March 6}}", r"\boxed{\text{May 5}}", "5",
        ],
    ),
    (
        r"6.02\times 10^{23}",
        [
            "6.02e23", "6.02 × 10^23", "6.02 x 10^23", "6.02*10^23", "6.02·10^{23}",
            "602000000000000000000000", r"$6.02\times10^{23}$",
        ],
        [
            "6.02e22", "6.02 × 10^{-23}", "6.02", "10^23",
        ],
    ),
    (
        r"\emptyset",
        [
            r"\boxed{\emptyset}", "∅", r"\boxed{\varnothing}", r"\emptyset",
        ],
        [],
    ),
    (
        r"\text{no solution}",
        [
            "No solution", r"\boxed{\text{No solution}}", "no solution",
            "The answer is no solution.", "**No solution**",
        ],
        [],
    ),
    (
        "1.5 hours",
        [
            "90 minutes", "1.5 hours", "1 1/2 hours", "1.5 h", "90 min",
        ],
        [
            "1.5 minutes", "90 hours", "15 hours",
        ],
    ),
    (
        "5 meters",
        [
            "5m", "5 m", "5 meter", "500 centimeters", r"\boxed{5~\mathrm{m}}", r"$5\,\mathrm{m}$",
            r"5 \; \text{meters}", "**5 meters**",
        ],
        [
            "5 centimeters", r"\boxed{5\,\mathrm{cm}}", "5 feet",
        ],
    ),
    (
        "ABCD",
        [],
        [
            r"\boxed{DCBA}", "BADC",
        ],
    ),
    (
        "HTTH",
        [],
        [
            "THHT", "HHTT",
        ],
    ),
    (
        r"\overline{AB}",
        [
            r"\overline{AB}", r"\boxed{\overline{BA}}",
        ],
        [],
    ),
    (
        "5 \\text{ cm}",
        [
            "The length is $5 \\text{ cm}$ exactly.",
            "It equals $5$ cm.",
            "**Final Answer**\n\n$5 \\text{ cm}$",
            "- 5 \\text{ cm}",
            "It is $50 \\text{ mm}$ in all.",
            "\\boxed{\\text{5 cm}}",
        ],
        [
            "The length is $5 \\text{ m}$ exactly.",
            "It equals $5$ m.",
            "It costs $5.",
            "\\boxed{\\text{5 km}}",
            "**Final Answer**\n\n$6 \\text{ cm}$",
        ],
    ),
    (
        "120 \\text{ km/h}",
        ["$120 \\text{ km/h}$ is the answer.", "So $120$ km/h is the speed"],
        ["$120 \\text{ m/s}$ is the answer."],
    ),
    ("12 \\text{ cm}^2", ["The area is $12 \\text{ cm}^2$."], ["The area is $12 \\text{ cm}$."]),
    (
        "3 \\text{ days}",
        ["It takes $3$ days to do it", "It takes $72$ hours to do it"],
        ["It takes $3$ weeks to do it"],
    ),
    (
        "20 \\text{ m/s}",
        ["Then $v = 20 \\text{ m/s}$ in the end"],
        ["Then $v = 20 \\text{ m}$ in the end"],
    ),
    ("\\mathbf{2^{10}}", ["\\boxed{\\mathbf{2^{10}}}", "1024"], ["\\boxed{\\mathbf{2^{11}}}", "2"]),
    (
        "3\\times 10^8",
        ["The speed is 3×10^8 m/s.", "It is 3x10^8", "It is 3×10⁸."],
        ["It is 3x10^7", "The speed is 3×10^9 m/s."],
    ),
    (
        "5 \\text{ cm}",
        [
            "It is \\(5 \\text{ cm}\\) here.",
            "So $$5 \\text{ cm}$$ is it",
            "\\[5 \\text{ cm}\\] is the length",
            "It is $5$ in total.",
            "So $x = 5\\text{ cm}$, and we are done.",
            "The length is **$5$ cm** in all.",
            "length $= 5$ cm long",
        ],
        [
            "It is \\(5 \\text{ m}\\) here.",
            "It is $5$ kg in total.",
            "\\boxed{\\text{5 cm squared}}",
        ],
    ),
    ("\\mathbf{v}", ["\\boxed{\\mathbf{v}}"], ["\\boxed{\\mathbf{w}}"]),
]  # fmt: skip
