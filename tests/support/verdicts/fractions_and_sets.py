"""Fractions, equations, intervals, sets and matrices."""

# The correct answer; responses that give it; responses that do not.
ROWS: list[tuple[str, list[str], list[str]]] = [
    (r"\frac{5}{6}", [r"$\frac{5}{6}$ km/h", r"The answer is $\frac{5}{6}$ cm."], ["$5$ km/h"]),
    (
        "1/2",
        [
            r"\frac12", r"\boxed{\frac{1}{2}}", "0.5", ".5", "50%", r"\boxed{50\%}", "½", "**½**",
            "2/4", "**1/2**", "The answer is **0.5**.", r"\boxed{\dfrac{1}{2}}", r"$\tfrac12$",
            "1⁄2", "1÷2", "The probability is 1/2.", r"\boxed{2^{-1}}", "0,5", "Antwort: 0,5",
            "The answer is 50 %.",
        ],
        [
            "2", "-1/2", "0.05", "1/3", r"\boxed{\frac{2}{1}}", "0.6", "5%", "0.5%", "1/20", "2/1",
            "1 2", "12",
        ],
    ),
    (
        "1/3",
        [
            "0.333333", r"\boxed{\frac{2}{6}}", "**1/3**", "⅓",
        ],
        [
            "0.3", "33", "3", "0.34",
        ],
    ),
    (
        "7/2",
        [
            "3 1/2", "3½", "3.5", r"3\frac{1}{2}", r"\boxed{3\frac12}", r"\boxed{3 1/2}",
            "The answer is 3 1/2.", "It takes 3 1/2 hours.", "**3 1/2**", r"\boxed{3\tfrac{1}{2}}",
        ],
        [
            "31/2", "3/2", "1/2", "3",
        ],
    ),
    (
        r"\frac{1}{2^{98}}",
        [
            r"\boxed{\frac{1}{2^{98}}}", "1/2^98", r"\boxed{2^{-98}}",
        ],
        [
            r"\boxed{\frac{1}{2^{99}}}", "1/2^99", r"\boxed{2^{-99}}", "0",
        ],
    ),
    (
        r"\angle ABC",
        [
            r"\boxed{\angle ABC}", r"\boxed{\angle CBA}", r"$\angle ABC$",
            r"The answer is $\angle ABC$.",
        ],
        [
            r"\boxed{\angle ACB}", r"\boxed{\angle BAC}", r"$\angle ACB$",
        ],
    ),
    (
        "[0,1)",
        [
            r"\boxed{[0,1)}", "[0, 1)", "$[0,1)$", "The answer is [0, 1).", r"0 \le x < 1",
            r"$0 \leq x < 1$", "[0, 1[", r"x \in [0,1)", r"$x\in[0,1)$",
        ],
        [
            r"\boxed{(0,1)}", r"\boxed{[0,1]}", "0,1",
        ],
    ),
    (
        r"(-\infty, 3]",
        [
            r"\boxed{(-\infty, 3]}", "(-∞, 3]", r"$(-\infty,3]$",
        ],
        [
            r"\boxed{(-\infty, 3)}", r"\boxed{[3, \infty)}",
        ],
    ),
    (
        "(2, 3)",
        [
            "(2, 3)", r"\boxed{(2,3)}", r"\boxed{\left(2, 3\right)}", "The point is $(2,3)$.",
            "**(2, 3)**",
        ],
        [
            "(3, 2)", r"\boxed{(3,2)}", "(2, 4)", "2",
        ],
    ),
    (
        r"\{1, 2, 3\}",
        [
            r"\boxed{\{3, 1, 2\}}", r"\boxed{\{1,2,3\}}", r"\boxed{1, 2, 3}",
        ],
        [
            r"\boxed{\{1,2\}}", "6",
        ],
    ),
    (
        r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}",
        [
            r"\boxed{\begin{pmatrix} 1 \\ 2 \end{pmatrix}}",
            r"\boxed{\begin{bmatrix}1\\2\end{bmatrix}}",
        ],
        [
            r"\boxed{\begin{pmatrix} 2 \\ 1 \end{pmatrix}}", "1",
        ],
    ),
    (
        "x=5",
        [
            "x=5", "5", r"\boxed{5}", r"\boxed{x = 5}", "**x = 5**",
        ],
        [
            "y=5", "x=6", "6",
        ],
    ),
    (
        r"x \le 3",
        [
            r"\boxed{x \le 3}", r"$x \leq 3$", "x <= 3", "x ≤ 3", r"\boxed{3 \ge x}",
        ],
        [
            r"\boxed{x < 3}", "x >= 3",
        ],
    ),
    (
        r"\frac{a}{b}",
        [
            r"\boxed{\frac{a}{b}}", "a/b", r"$\frac ab$",
        ],
        [
            r"\boxed{\frac{b}{a}}", "ab",
        ],
    ),
    (
        "-3/4",
        [
            "-3/4", "−3/4", "-0.75", r"-\frac{3}{4}", r"\boxed{-\frac34}", r"\boxed{\frac{-3}{4}}",
            "**-3/4**", "**−3/4**", r"$-\frac{3}{4}$", "The answer is -3/4.", "−¾", "-75%",
            r"\boxed{-.75}", "(-3)/4", "-(3/4)",
        ],
        [
            "3/4", "¾", "-4/3", "-3", "4",
        ],
    ),
    (
        "x=1, x=2",
        [
            "x=1, x=2", "1, 2", "x = 1 or x = 2", r"\boxed{x=1,2}", r"\boxed{1,2}", "x=2 and x=1",
            "$x=1$ or $x=2$", "**x = 1** and **x = 2**", r"\boxed{x=1 \text{ or } x=2}",
            r"x \in \{1,2\}",
        ],
        [
            "x=1", "1", "x=1, x=3",
        ],
    ),
    (
        r"(3, \frac{\pi}{2})",
        [
            r"\boxed{(3, \frac{\pi}{2})}", "(3, π/2)", "(3, pi/2)",
            r"$\left(3, \frac{\pi}{2}\right)$",
        ],
        [],
    ),
    (
        "y = 2x + 1",
        [
            "y = 2x + 1", "y=2x+1", r"\boxed{y=2x+1}", "**y = 2x + 1**", "y = 1 + 2x", "2x+1",
            "$y = 2x + 1$",
        ],
        [
            "y = 2x - 1", "y = x + 1",
        ],
    ),
    (
        r"\frac{1}{2^{99}}",
        [],
        [
            "1/2^98", "2^{-98}", r"\boxed{\frac{1}{2^{98}}}", "0",
        ],
    ),
    (
        r"\triangle ABC",
        [
            r"\boxed{\triangle ABC}",
        ],
        [],
    ),
    (
        "3/4",
        [
            "**3/4**", r"**\frac{3}{4}**", r"\frac34", "3 / 4", "3/4 cup",
            r"The answer is $\dfrac{3}{4}$ of it.", "0.75", "75%", "¾ cup", "$3/4$",
            r"\boxed{3/4}", "**¾**", "Answer: ¾", r"\frac{3}{4}.", r"\(\frac{3}{4}\)",
        ],
        [],
    ),
    (
        "(2,3)",
        [
            "x=2, y=3", r"\boxed{x=2, y=3}", "(x,y)=(2,3)", r"\boxed{(x, y) = (2, 3)}",
            "**(2,3)**", "x = 2 and y = 3",
        ],
        [],
    ),
    (
        r"\frac13",
        [
            r"0.\overline{3}", "1/3", "0.333333333", "0.3333333",
        ],
        [
            "0.33", "0.3", "3",
        ],
    ),
    (
        r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
        [
            r"\boxed{\begin{bmatrix}1&2\\3&4\end{bmatrix}}",
            r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
            r"$$\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}$$",
            r"\boxed{\left(\begin{array}{cc}1&2\\3&4\end{array}\right)}",
        ],
        [
            r"\boxed{\begin{pmatrix}1&3\\2&4\end{pmatrix}}",
        ],
    ),
    (
        r"\frac{\sqrt2}{2}",
        [
            "√2/2", "√(2)/2", "sqrt(2)/2", "sqrt2/2", r"\frac{1}{\sqrt{2}}",
            r"\boxed{\frac{\sqrt{2}}{2}}", "1/√2",
        ],
        [
            "√2", "1/2",
        ],
    ),
    (
        "2/3",
        [
            "0.666667", "2/3", "66.6667%", r"\frac{4}{6}",
        ],
        [
            "0.67", "0.66", "66%",
        ],
    ),
    (
        r"\angle XYZ",
        [
            "∠XYZ", r"$\angle ZYX$",
        ],
        [
            r"\angle YXZ",
        ],
    ),
    ("3/4", ["- 3/4", "* 3/4"], ["- 4/3"]),
    (
        "\\mathbf{1\\frac{1}{2}}",
        ["\\boxed{\\mathbf{1\\frac{1}{2}}}", "3/2"],
        ["\\boxed{\\mathbf{1\\frac{1}{3}}}", "1"],
    ),
    (
        "\\mathbf{\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}}",
        [
            "\\boxed{\\mathbf{\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}}}",
            "\\boxed{\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}}",
        ],
        ["\\boxed{\\mathbf{\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}}}"],
    ),
    (
        "\\frac{\\sqrt3}{2}",
        ["So the sine is √3/2.", "It equals √3/2 in this case."],
        ["So it is √3."],
    ),
    ("\\boldsymbol{\\frac{1}{2}}", ["1/2", "\\boxed{\\boldsymbol{\\frac{1}{2}}}"], ["2"]),
    (
        "\\text{42 apples}",
        ["42", "42 apples", "\\boxed{42}", "\\boxed{\\text{42 apples}}"],
        ["41 apples", "\\boxed{\\text{41 apples}}"],
    ),
    ("3/4", ["The answer is 3 over 4."], ["The answer is 4 over 3."]),
]  # fmt: skip
