"""Responses to problems, each with the verdict that a careful grader gives."""

# The right answer; responses that give it; responses that do not.
MATH: list[tuple[str, list[str], list[str]]] = [
    (
        "3",
        [
            "$3$ m/s", "The answer is $3$ m/s.", "$3$ m^2", "The answer is $3$ N.", "**$3$ J**",
            "The answer is 3 and not 4.", "The answer is $3$ km/h",
        ],
        ["$4$ m/s", "The answer is 4 and not 3."],
    ),
    (r"\frac{5}{6}", [r"$\frac{5}{6}$ km/h", r"The answer is $\frac{5}{6}$ cm."], ["$5$ km/h"]),
    (r"25\pi", [r"$25\pi$ cm^2", r"The area is $25\pi$ cm^2."], [r"$5\pi$ cm^2"]),
    (
        "1,2",
        [r"\boxed{1}\text{ and }\boxed{2}", r"\boxed{1}, \text{ } \boxed{2}"],
        [r"\boxed{1}\text{ and }\boxed{3}"],
    ),
    (
        "42",
        [
            "**42**", "The answer is **42**.", "The answer is **42**", "**Answer:** 42",
            "**Answer: 42**", "**Answer**: **42**", "Answer:\n\n**42**", "__42__", "*42*", "_42_",
            "***42***", "`42`", "The answer is `42`.", "```\n42\n```", "# 42", "## Answer\n\n42",
            "### Final answer: 42", "42\n\n---", "42\n***", "So we get **$42**", "**$42$**",
            "> **42**", "- **42**", "1. Add the parts.\n2. The total is **42**.", "#### 42",
            "#### **42**", "The final result is **42**!", "**The answer is 42.**",
            "Total = **42**", "**Final Answer**\n\n**42**", "| total |\n|---|\n| 42 |",
            "The answer is *42*.", "Thus, the result is __42__.", "Result: **42**\n\n---\n",
            "(**42**)", "**42.**", "It equals ***42***.", "**Final answer:** `42`",
            "The sum is\n\n**42**", r"\boxed{42}", r"$\boxed{42}$", r"\[\boxed{42}\]",
            r"\fbox{42}", r"\boxed{\boxed{42}}", r"\boxed{ 42 }", r"\boxed{42.}", r"\boxed{$42$}",
            r"\boxed{\text{42}}", r"\boxed 42", r"**\boxed{42}**", r"\boxed{**42**}",
            r"\boxed{7} is too few; \boxed{42}", r"Put the answer in \boxed{}: \boxed{42}",
            r"\boxed{42}, and then \boxed{}", r"\boxed{\mathbf{42}}", r"\boxed{{42}}",
            r"\boxed{x = 42}", r"\boxed{42}. I checked 7 cases.", r"\boxed {42}", r"\boxed{42\,}",
            r"\boxed{+42}", r"\boxed{6 \cdot 7}", r"\boxed{42.0}", r"\boxed{42 \text{ apples}}",
            r"\boxed{\$42}", r"\boxed{42\%}", "42", "42.", "The answer is 42.", "answer: 42",
            "ANSWER: 42", "Answer = 42", "The answer is: 42 apples.", "The answer is 42, not 41.",
            "The answer is 42 because 6*7=42.", "The answer to the second part is 42.", "x = 42",
            "Hence x=42.", "6 * 7 = 42", "She has 42 apples.", "It costs $42.",
            "The correct answer is 42 (forty-two).", "The answer is 42. That took 3 steps.",
            "84/2", "The answer is $42$.", r"The answer is \(42\).", r"The answer is: \[42\]",
            "<answer>42</answer>", "<answer>**42**</answer>",
            "I get 40 + 2, so the final answer is 42. I hope it is correct.", "42 apples", "042",
            "答案是42。", "答案是 **42**。", "答案：42", "因此，答案为42。", "Antwort: 42",
            "Die Antwort ist 42.", "Réponse : 42", "La réponse est 42.", "Respuesta: **42**",
            "La respuesta es 42.", "Risposta: 42", "Resposta: 42", "Ответ: 42", "Ответ: **42**.",
            "答えは42です。", "정답은 42입니다.", "الجواب: ٤٢", "الجواب هو ٤٢.", "٤٢", "４２",
            "答えは４２です。", "उत्तर: ४२", r"\boxed{４２}", r"\boxed{٤٢}", "Đáp án: 42",
            "Antwoord: 42", "**42** apples", "The answer is **42 apples**.", "**x = 42**",
            "_**42**_", "**_42_**", "<b>42</b>", "**Answer**\n42", "**Answer:**\n\n$$42$$",
            "$$\n42\n$$", r"\[ 42 \]", "~~41~~ 42", r"\textbf{42}", "Answer: 42 ✓", "✅ **42**",
            "**42** 🎉", "“42”", '"42"', "'42'", r"\(\boxed{42}\)", 'The answer is: "42"',
            "Answer: $$42$$", r"The final answer is $\boxed{42}$. I hope it is correct.",
            "**Total:** 42", "So there are **42** of them.", "The answer is **42** (see above).",
            "Therefore 42 is the answer.", "42 is the answer", "**42** is the answer.",
            "the answer is therefore 42.", "The answer, then, is 42.", "Answer:42", "answer 42",
            "The result is 42.", "= 42", r"6\cdot 7 = 42", r"$6\cdot 7 = 42$",
            r"$$x = 6 \cdot 7 = 42$$", r"\begin{align*}x&=6\cdot 7\\&=42\end{align*}",
            r"\[\begin{aligned} x &= 42 \end{aligned}\]", r"Answer: \[42\]", "Answer:\n\\[42\\]",
            "The answer is\n\n42", "The answer is approximately 42.", "The answer is exactly 42",
            "The answer is about 42.", "**Answer:** The total is 42.", "Answer: The total is 42.",
            "The answer is the sum, 42.", "The answer is 6 × 7 = 42.", "Answer: 6*7=42",
            r"The answer is $6 \times 7 = 42$.", r"\boxed{6 \times 7 = 42}", r"\boxed{42 units}",
            r"\boxed{42~\text{cm}}", r"\boxed{\textbf{42}}", r"\boxed{\text{The answer is }42}",
            r"\boxed{n=42}", r"\boxed{\displaystyle 42}", r"$\boxed{\mathbf{42}}$",
            r"\boxed{ \ 42 \ }", r"\framebox{42}", "**Solution:** 42", "Solution: 42",
            "The value is **42**", "= **42**", "x=**42**", "$x=42$", "**$x=42$**", "`x = 42`",
            "The answer is forty-two (42).", "My answer: 42", "answer is 42 km",
            r"\text{Answer: } 42", r"The answer is \textbf{42}.", r"The answer is $\mathbf{42}$.",
            "Answer: **42 cm**", "Q: 6*7? A: 42", "A: 42", "Ans: 42", "Ans. 42", "ANS = 42",
            "The solution is 42.", "The answer is\n**42**", r"**The answer is $\boxed{42}$**",
            "$42", "€42", "42€", "42 €", "¥42", "42 %", "+42", "42-", "-- 42", "* 42", "• 42",
            "→ 42", "⇒ **42**", "∴ 42", "x ≈ 42", "x=42.00", "42,00",
            "The answer is 42.\n\nLet me know if you have 3 more questions!",
            "The answer is 42.\n\n**Note:** 7 is prime.", "**42**\n\nI checked this in 3 ways.",
            "\\boxed{42}\n\n\\boxed{}",
            "Final Answer: The final answer is $42$. I hope it is correct.", "最终答案是42",
            "答：42", "答案为 $42$", r"答案是 \boxed{42}", "所以 42", "结果是42个",
            "共有42个苹果。", "答案是42个。", "La respuesta correcta es 42.",
            "Die richtige Antwort lautet 42.", "La réponse finale est **42**.",
            "La bonne réponse est 42.", "Odpowiedź: 42", "Cevap: 42", "Vastaus: 42",
            "Svar: **42**", "A resposta é 42.", "La risposta è 42.", "Правильный ответ: 42",
            "Ответ — 42", "Ответ равен 42", "Απάντηση: 42", "תשובה: 42", "คำตอบ: 42",
            "คำตอบคือ ๔๒", "پاسخ: ۴۲", "جواب: ۴۲", "उत्तर है 42", "উত্তর: ৪২",
        ],
        [
            "**43**", "41", r"\boxed{-42}", r"\boxed{4.2}", r"\boxed{42}, no, \boxed{43}",
            "no idea", "", "forty", r"\boxed{420}", "The answer is **24**.", "答案是43。", "٤٣",
            r"\boxed{}", r"\boxed{42", "The answer is 41, not 42.", "4 and 2", r"\boxed{4, 2}",
            r"\boxed{42, 43}", "`43`", r"\boxed{\frac{42}{100}}", "#### 4.2",
            "**42**, or rather **43**", "I need 42 to be checked, but the answer is 41.",
            "The answer is between 41 and 43.",
            "**41**\n\n42 was my first guess? No: the answer is 41.", r"\boxed{42 \text{ or } 43}",
            "The answer is 42000.", "42/2", "42x", r"\boxed{42x}", r"\boxed{42!}",
            r"\boxed{\sqrt{42}}", "42^2", "The answer is 42^2.", "**42**^2", "x > 42",
            r"$x \ge 42$", "-42", "**-42**", "0.42", "42e3", "1/42", r"\boxed{\frac{1}{42}}",
        ],
    ),
    (
        "-5",
        [
            "-5", "−5", "#### −5", "**−5**", "The answer is **-5**.", r"\boxed{-5}", r"\boxed{−5}",
            "－５", "x = -5", "x = −5", "$-5$", "Answer: –5", r"\boxed{-5.0}", "The answer is −5.",
            "**Answer:** −5", r"\boxed{\text{-5}}", "*-5*", "`-5`", "-5°C", "−5 °C", "minus 5",
            "negative 5", r"\boxed{-5^\circ}", "- 5", r"\boxed{- 5}", "–5", "(-5)", "-5.", "x=-5",
            "-5 degrees", r"\text{-}5",
        ],
        [
            "5", r"\boxed{5}", "3 - 8 = 5", "**5**",
        ],
    ),
    (
        "1234",
        [
            "1,234", "**1,234**", r"\boxed{1,234}", r"\boxed{1{,}234}", r"1\,234",
            r"\boxed{1\,234}", r"\boxed{1\ 234}", "1 234", "1\u202f234", "1\xa0234",
            r"\boxed{1 234}", "The total is 1,234.", "**$1,234**", r"\$1,234", "1'234", "1234.0",
            "1.234,0", "The answer is 1,234 people.", r"\boxed{1,\!234}", "１，２３４", "1.234e3",
            r"\boxed{1.234\times 10^3}", "1.234 × 10^3", r"1.234 \cdot 10^{3}", "1,234.00",
        ],
        [
            "1,235", "1.234", "234", r"\boxed{1, 2, 34}", "12,34", "1,234,000", r"\boxed{1\,235}",
            "1 235",
        ],
    ),
    (
        "8",
        [
            "2**3", "The answer is 2**3.", "2^3", "**2**3 = 8**", r"\boxed{2^3}", r"\boxed{2**3}",
            "2³", "The answer is 2³.", "16/2", r"\boxed{\sqrt{64}}", "√64", "$2^{3}$", "2 * 4",
        ],
        [
            "2*3", "3**2", "6", "23", "3²",
        ],
    ),
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
        "3 1/2",
        [
            "3.5", r"\boxed{\frac72}", "7/2", "3½",
        ],
        [
            "31/2", "1/2", "3",
        ],
    ),
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
        "5 cm",
        [
            "5 cm", "5 centimeters", r"\boxed{5 \text{ cm}}", "0.05 m", "5",
        ],
        [
            "5 m", "5 mm", "5 inches",
        ],
    ),
    (
        "5",
        [
            r"\boxed{5\text{ cm}}", "5 km/h", "x=5", r"\boxed{x=5}", r"\boxed{5\text{ dollars}}",
            "5th", "the 5th", r"\boxed{5^{th}}", r"\boxed{5^{\text{th}}}", "five", "**five**",
            "The answer is five.", "5!/4!", r"\boxed{5\text{ (five)}}", "5/1",
        ],
        [
            "6 cm",
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
        "60 km/h",
        [
            "60 km/h", "60 km per hour", "60 kilometers per hour", "60",
        ],
        [
            "60 m/s", "60 km", "60 km/s",
        ],
    ),
    (
        "90",
        [
            "90°", r"90^\circ", r"\boxed{90^\circ}", "90 degrees", r"\boxed{90^{\circ}}",
            "The angle is **90°**.",
        ],
        [
            "9°", "80°",
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
        r"20^\circ\text{C}",
        [
            "20 °C", "20°C", r"\boxed{20^\circ\text{C}}", "20",
        ],
        [
            "20 °F", "25 °C",
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
        r"\frac{1}{2^{98}}",
        [
            r"\boxed{\frac{1}{2^{98}}}", "1/2^98", r"\boxed{2^{-98}}",
        ],
        [
            r"\boxed{\frac{1}{2^{99}}}", "1/2^99", r"\boxed{2^{-99}}", "0",
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
        "0.0000012",
        [
            "0.0000012", "1.2e-6", r"\boxed{1.2\times10^{-6}}",
        ],
        [
            "0.000001", "0.0000011", "0",
        ],
    ),
    (
        "0",
        [
            "0", "0.0", r"\boxed{0}", "**0**", "zero", "0.", "0.00", "$0",
        ],
        [
            "0.0000001", r"\boxed{10^{-9}}", "no", "o", "O", "-1", r"\boxed{\emptyset}",
        ],
    ),
    (
        "1,1,2",
        [
            "1,1,2", r"\boxed{1, 1, 2}", "1, 1, and 2",
        ],
        [
            "1,2", r"\boxed{1, 2}", "1,2,2,2",
        ],
    ),
    (
        "1,2",
        [
            "1,2", r"\boxed{1, 2}", r"\boxed{2, 1}", "1 and 2", r"$\boxed{1}$ and $\boxed{2}$",
            r"\boxed{1 \text{ and } 2}", "The roots are $x=1$ and $x=2$.", r"\boxed{\{1,2\}}",
            "**1, 2**", "The answers are 1 and 2.",
        ],
        [
            "1,1,2", r"\boxed{1,1,2}", "1,3", "1", "12",
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
        "xy",
        [
            r"\boxed{xy}", r"\boxed{yx}", r"\boxed{x \cdot y}", "x*y",
        ],
        [
            r"\boxed{x+y}", r"\boxed{xz}",
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
        "0.50",
        [
            "50 cents of 100, so 0.5", "$0.50", r"\boxed{0.5}",
        ],
        [
            "5",
        ],
    ),
    (
        "25%",
        [
            "25%", r"\boxed{25\%}", "0.25", "25 percent", "25", "**25%**", "1/4",
            r"\boxed{\frac14}",
        ],
        [
            "2.5", "0.025", "25/10", "75%",
        ],
    ),
    (
        "0.5",
        [
            "50%", "0.50", "1/2", r"\boxed{.5}",
        ],
        [
            "0.5%", "5%", "5",
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
        "1000",
        [
            "1e3", "10^3", "1,000", r"\boxed{10^{3}}", "10³", "1 000",
        ],
        [
            "100", "1", "3", "10",
        ],
    ),
    (
        "3.14",
        [
            "3.14", "3,14", r"\boxed{3.14}", "**3.14**",
        ],
        [
            "314", "3.1", r"\boxed{3.15}",
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
        "2024",
        [
            "2024", "In 2024.", "**2024**", "The year is 2024.",
        ],
        [
            "2023", "20, 24",
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
        "1,000,000",
        [
            "1000000", "1,000,000", "10^6", "1e6", "**1,000,000**", r"\boxed{1,000,000}",
            r"\boxed{1\,000\,000}", "1 000 000", "1 million", "$1{,}000{,}000$", "1.000.000",
            "1'000'000", "1_000_000",
        ],
        [
            "1000", "1,000", "100,000", "10,000,000",
        ],
    ),
    (
        "2.5",
        [
            "2.5", "2,5", "5/2", "2 1/2", "2½", "**2.5**", r"\boxed{2.50}", "2.5 hours", "2.5cm",
        ],
        [],
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
        r"\pm 2",
        [
            r"\boxed{\pm 2}", "±2", r"\boxed{2, -2}", "x = ±2", r"\boxed{-2, 2}",
        ],
        [
            "2", "-2",
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
        "50%",
        [
            "50%", "1/2", "0.5", "50", "50 percent", r"\frac12",
        ],
        [
            "5%", "0.05", "0.5%",
        ],
    ),
    (
        "0.05",
        [
            "5%", "0.05", "1/20",
        ],
        [
            "5", "0.05%", "50%",
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
        r"\triangle ABC",
        [
            r"\boxed{\triangle ABC}",
        ],
        [],
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
        "1234.56",
        [
            "**1,234.56**", "1.234,56", "€1.234,56", "1 234,56", "$1,234.56", r"\$1,234.56",
            r"**\$1,234.56**", "1234,56", "1,234.56 dollars", r"1\,234.56", r"\boxed{1\,234{.}56}",
            r"\boxed{1{,}234.56}", "1’234.56",
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
        "(2,3)",
        [
            "x=2, y=3", r"\boxed{x=2, y=3}", "(x,y)=(2,3)", r"\boxed{(x, y) = (2, 3)}",
            "**(2,3)**", "x = 2 and y = 3",
        ],
        [],
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
        r"\frac13",
        [
            r"0.\overline{3}", "1/3", "0.333333333", "0.3333333",
        ],
        [
            "0.33", "0.3", "3",
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
        r"\infty",
        [
            r"\infty", "∞", "infinity", r"\boxed{\infty}", r"+\infty",
        ],
        [
            r"-\infty", "0",
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
        r"\ln 2",
        [
            "ln 2", "ln(2)", r"\ln 2", r"\boxed{\ln 2}", r"$\ln(2)$",
        ],
        [],
    ),
    (
        "120",
        [
            "5!", r"\boxed{5!}", "120",
        ],
        [],
    ),
    (
        "10",
        [
            r"\binom{5}{2}", r"\boxed{\binom52}", "C(5,2) = 10",
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
        "1500000",
        [
            "$1.5 million", "1.5 million", "1,500,000 dollars",
        ],
        [],
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
        "2/3",
        [
            "0.666667", "2/3", "66.6667%", r"\frac{4}{6}",
        ],
        [
            "0.67", "0.66", "66%",
        ],
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
        "$5",
        [
            "5 dollars", "$5.00", "5", "USD 5", "5 USD",
        ],
        [
            "5 cents", "£5", "5 euros",
        ],
    ),
    (
        "30%",
        [
            "30%", "0.3", "3/10", "30 percent", "30 per cent", r"30\%",
        ],
        [
            "3%", "0.03", "300%",
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
        "ABCD",
        [],
        [
            r"\boxed{DCBA}", "BADC",
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
        "HTTH",
        [],
        [
            "THHT", "HHTT",
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
        r"\overline{AB}",
        [
            r"\overline{AB}", r"\boxed{\overline{BA}}",
        ],
        [],
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
        "2,2,5",
        [
            "2, 2, 5", "5,2,2",
        ],
        [
            "2,5", "5,2",
        ],
    ),
    (
        "1,2,3",
        [],
        [
            "1,2,2,3", "1,2",
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
        "12",
        [
            "The answer is **12** (twelve).", "There are 12 eggs.", "12 eggs", "Twelve",
            "**Answer: 12 eggs**", "12;", "12,", "12:", "(12)", "[12]", "{12}", "$12$ eggs",
            "12 (since 3*4 = 12)", "= 12 eggs", "3 * 4 = **12**", "3 × 4 = 12.", "3*4=12",
            "so 12, since 3*4=12", "The answer is twelve.",
        ],
        [
            "12.5", "112", "1.2", r"\boxed{12a}", "There are 12 eggs and 13 hens, so 25 animals.",
            "-12",
        ],
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
]  # fmt: skip

# The right letter, how many options there are (0: not known); responses that choose it; others.
CHOICE: list[tuple[str, int, list[str], list[str]]] = [
    (
        "B", 4,
        [
            "B", "b", "B.", "(B)", "(b)", "b)", "**B**", "**b**", "**(B)**", "**B.**", "__B__",
            "`B`", "[B]", "B)", r"\boxed{B}", r"\boxed{b}", r"\boxed{(B)}", r"\boxed{\text{B}}",
            r"\boxed{\text{(b)}}", r"$\boxed{B}$", r"\boxed{\textbf{(B)}}",
            r"\boxed{B. \text{ Paris}}", r"\boxed{\mathrm{B}}", r"\boxed{\text{Option B}}",
            "The answer is B", "The answer is B.", "The answer is (B).", "The answer is **B**.",
            "the answer is b", "answer: b", "Answer: B", "Answer: (B)", "**Answer:** B",
            "**Answer: B**", "**Answer: (B)**", "ANSWER: B", "Option B", "Option B is correct.",
            "option b", "The correct option is B.", "The correct choice is (B).",
            "The correct choice must be B because I computed it.",
            "The correct answer is definitely B. A is wrong.",
            "The answer is B. Note that A car has four wheels.", "B is the correct answer, not A.",
            "B is correct.", "I choose B", "I would choose option B, since A and C are false.",
            "I pick (B).", "I think the answer is B.",
            "We conclude that the answer is B. I am sure.", "Final answer: B",
            r"The final answer is \boxed{B}", "A and C are wrong, so the answer is B.",
            "The answer is not A but B. The answer is B.", "A is wrong, C is wrong. So it's B.",
            "B. Paris", "B: Paris", "(B) Paris", "**B. Paris**", "**B) Paris**",
            "Therefore, the best choice is **B**: A car needs fuel.", "答案是B", "答案：B",
            "正确答案是 **B**。", "答案是（B）", "选B", "Antwort: B", "Die Antwort ist B.",
            "Réponse : B", "Respuesta: b", "Ответ: B", "答えはBです。", "정답은 B입니다.", "Ｂ",
            "The answer is A. Wait. The answer is **B**", r"First \boxed{A}, but no: \boxed{B}",
            "<answer>B</answer>", "<answer>(b)</answer>", "The answer is:\n\nB",
            "## Answer\n\n**B**", "Answer\nB", "The answer is option B.", "The answer is choice B",
            "The correct letter is B.", "It is B, not D.", "The answer is B, I think.",
            "The answer must be B. I checked A, C and D.", "B\n\n---", "So, B.",
            "Option (B) fits best; options A, C, D do not.",
            "The answer is B because a cat is an animal.", "The answer is $B$.",
            r"The answer is $\text{B}$.", r"The answer is \textbf{(B)}", "answer is: b.",
            "The right answer would be B", "Answer - B", "The answer: B. A is tempting.",
            "The answer is **(B) Paris**.", "**Answer:** **B**", "Answer: **B. Paris**",
            "The best answer is B: Paris.", "The answer is (B) Paris.", "B is the answer.",
            "B is right", "Thus B.", "Therefore, B", "Therefore, the answer is B) 4",
            "correct answer: B", "Correct option: (B)", "Correct answer - B", "Choice: B",
            "Choice B", "My choice is B", "I'd go with B.", "I will go with option B",
            "I'm going with B", "Let's go with B.", "B it is.", "So the answer should be B.",
            "The answer, I think, is B.", "The answer is clearly B",
            "The answer is most likely B.", "The answer is probably b.",
            "The answer is either A or B; I choose B.", "It can't be A. It can't be C. B",
            "Eliminate A, C and D. B remains.",
            "A: wrong. B: right. C: wrong. D: wrong.\nAnswer: B",
            "A) no\nB) yes\nC) no\nSo the correct answer is B", "Given A, the answer is B",
            "The answer is B\n\nA is wrong because it is too small.",
            "The answer is B.\n\nExplanation: A car moves.",
            "**B**\n\nExplanation: A is wrong since I checked it.",
            "B\n\nExplanation: A is wrong.", "B) because A is wrong", "(B) because A is wrong",
            "b. because", "The answer is B!", 'The answer is "B".', "The answer is 'B'.",
            "The answer is “B”", "The answer is: **B**", "The answer is ( B )", "answer:B",
            "Answer：B", "ANSWER IS B", "the answer is option (b)", "The correct statement is B.",
            "Statement B is correct.", "The correct one is B.", "B and not A", "Only B is true.",
            "Only option B holds", "Hence, option (B) is correct.",
            "Hence B is the correct option.", "Hence (B).", "<b>B</b>", "_B_", "*B*",
            "**Option B**", "**Option B: Paris**", "**Correct answer: B**",
            r"The answer is \(B\).", r"$\text{(B)}$", r"\(\text{B}\)", r"\boxed{\textbf{B}}",
            r"\boxed{B)}", r"\boxed{\text{B. Paris}}", r"\boxed{\text{(B) } 4}", r"\boxed{B: 4}",
            r"\boxed{\text{Answer: B}}", r"\boxed{\mathbf{(B)}}", r"\boxed{ B }",
            r"\[\boxed{\text{(B)}}\]", r"\fbox{B}",
            r"The answer is \boxed{\text{B}}, since A is too large.", "[[B]]", "{B}", "<B>",
            "Answer: [B]", "Answer is (b).", "b.", "b:", "Answer\n\n(B)", "Option: B",
            "I believe the correct answer is (B).", "Final Answer: (B)", "FINAL ANSWER: B",
            "The final answer is: B", "Final choice: B", "选择B", "我选B", "应该选择 B",
            "本题选B。", "故选：B", "故选B.", "答案应该是B", "正确选项是B",
            "La bonne réponse est B.", "La respuesta correcta es la B.",
            "La risposta corretta è B.", "A resposta correta é B.", "Правильный ответ: B",
            "Die richtige Antwort ist B.", "Lösung: B", "الإجابة: B", "الجواب هو B", "उत्तर: B",
            "Đáp án: B", "정답: B", "答えはB", "Ⓑ", "𝐁", "A is wrong. I think B",
            "I think that A is wrong and that B is right.", "I would say B.", "I say B.",
            "It's B.", "It is (B).", "that would be B.",
            "The answer is B. I hope this helps! A good day to you.",
            "As A, C, D fail, B must be true.", "I chose B because A and C are both false.",
            "Answer: B (not A)", "Answer: B, since option A is false",
            "The answer is B rather than A.", "Not A; B.", "The answer isn't A, it is B.",
            "The answer is not A. It's B.",
        ],
        [
            "A", "C", "(c)", "The answer is C", "**D**", r"\boxed{A}", "", "no idea",
            "I do not know.", "A car", "The answer is not B but C. The answer is C.",
            "B or C? The answer is C.", "The answer is E.", "E", "I computed it.",
            "Both DNA and RNA", "答案是C", "The answer is B. No, the answer is A.", "Option A",
            "The answer is a banana.", "The answer is Bob.", r"\boxed{2}", "3",
            "The answer is A, not B.", "The answer is A rather than B", "not B", "It is not B.",
            "B is wrong", "B is incorrect.", "Option B is wrong.", "The answer is not B.",
            "The answer can't be B", "The answer cannot be (B).", "I rule out B",
            "The answer is A. B is wrong.", "The answer is definitely A. B would be too small.",
            "a", "The answer is A because B is too small", "Answer: A\nB: 3",
            "Vitamin B is good for you. The answer is D.", "Be", "Bob",
            "Let b = 2, so the answer is 4.", "x = b", r"\boxed{AB}",
            r"\boxed{A}, not \boxed{B}? The answer: \boxed{A}", "Answer: none",
            "None of the above", "The answer is A or B.",
        ],
    ),
    (
        "C", 10,
        [
            "The correct choice must be C because I computed it.", "C, as I said", "I choose C.",
            "(C) I am sure", "The answer is C. A car is red. I know.",
        ],
        [
            "I", "A", "The answer is I.", "The answer is D",
        ],
    ),
    (
        "A", 4,
        [
            "A", "a", "(a)", "The answer is A", "The answer is A because it is red.", "answer: a",
            "**A**", "A.", "The answer is A. I like it.", "Option A", r"\boxed{A}",
            "A is correct.", "The answer is (A) a car.", "The answer is A.", "A, I think.",
            "It is A.", "I think A.", "The answer is A since I checked.",
            "The answer is A as shown.", "A\n", "The answer is A - a car",
            "The answer is A: a car", "A. a car", "A) a car", "(A) a car",
            "The answer is A, a car.", "The answer is A (a car).",
        ],
        [
            "A car is red, so the answer is B.", "The answer is a car.", "B", "I think so.",
            "A dog is an animal.", "The answer is a dog.", "It is a dog", "A dog",
            "What a day! Answer: B", "a cat or a dog",
        ],
    ),
    (
        "I", 10,
        [
            "The answer is I.", "(I)", r"\boxed{I}", "**I**", "I", "i", "answer: i", "Option I",
        ],
        [
            "I think the answer is J.", "I am not sure.", "The answer is what I computed.", "J",
            "I do not know", "I think so", "I computed it", "I'm sure it is J",
            "The answer is J, I think.",
        ],
    ),
    (
        "J", 10,
        [
            "J", "The answer is J.", r"\boxed{j}", "I think the answer is J.",
        ],
        [
            "I", "K", "The answer is I.",
        ],
    ),
    (
        "D", 0,
        [
            "D", "d", "The answer is D, and A is wrong", "(D)",
        ],
        [
            "C", "K", "The answer is K",
        ],
    ),
    (
        "E", 5,
        [
            "E", "The answer is (E).", "e",
        ],
        [
            "The answer is F", "F",
        ],
    ),
    (
        "C", 4,
        [
            "The answer is C because I computed it and A is less.", "I think it's C",
            "C. I am certain.", "Answer: C\n\nI am sure.", "The answer is C. I. e. the third.",
        ],
        [],
    ),
    (
        "K", 11,
        [
            "K", "The answer is K.",
        ],
        [],
    ),
    (
        "C", 3,
        [],
        [
            "D", "The answer is D.",
        ],
    ),
    (
        "B", 2,
        [
            "B", "The answer is B; C is not an option",
        ],
        [],
    ),
]  # fmt: skip

# Long responses, which begin like this.
REASONS = (
    "Let us go through the options one by one and see which of them can be true given what we "
    "know.\n"
)
_RIGHT = [
    "(A) is too small. (B) fits. (C) is too large.\n\nTherefore B.",
    "A. 4 is wrong\nB. 5 is right\nC. 6 is wrong\n\nSo **B**",
    "**A)** no\n**B)** yes\n**C)** no\n\n**B**", "A) no\nB) yes\nC) no\nD) no\n\nB",
    "Option A: no\nOption B: yes\nOption C: no\n\nHence, (B).",
    "We see that (A) and (C) fail.\n\nOption B is right.",
    "- A: no\n- B: yes\n- C: no\n\nThe answer is B.",
    "The first is false, and so is the third.\n\n(B)",
    "The first is false, and so is the third.\n\nb)", "Since I know that A is false:\n\nB",
    "So we have **B) 5**.", r"So it is \textbf{(B)}.", "Final answer: **B**. A is close, though.",
]  # fmt: skip
_WRONG = [
    "(A) is too small. (B) is, too. (C) fits.\n\nTherefore C.", "A) no\nB) no\nC) yes\n\nC",
    "I do not know.", "A) no\nB) yes\nC) no\nD) no",
]  # fmt: skip
CHOICE.append(("B", 4, [REASONS + text for text in _RIGHT], [REASONS + text for text in _WRONG]))

MATH += [
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
        "25^\\circ",
        ["We get $25$ degrees", "We get $25^\\circ$ here"],
        ["We get $26$ degrees", "We get $25$ dollars"],
    ),
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
    (
        "100000",
        ["So we get $1e5$, as required."],
        ["So we get $1e6$, as required.", "So we get $5$, as required."],
    ),
    ("$7", ["It is $7 and not more", "From $5 it went to $7 at last"], []),
    ("2", [], ["The answer is 2,000", "2,000"]),
    ("4", ["4,0", "The answer is 4,00."], ["**4,000**"]),
    ("3", [], ["#### 3,000", "3,000"]),
    ("12", [], ["The answer is 12,000.", "12,000"]),
    ("-1", ["-1,0"], ["-1,000"]),
    ("3.142", ["3,142", "Antwort: 3,142"], ["3,143"]),
    ("0.125", ["0,125"], ["125"]),
    (
        "42",
        [
            "42!",
            "**42!**",
            "The answer is 42!",
            "- 42",
            "Answer:\n- 42",
            "Answer:\n\n- 42",
            "The answer is not 41 but 42.",
            "\\boxed{42} (not \\boxed{41})",
            "\\boxed{42}, rather than $\\boxed{41}$",
            "\\boxed{\\text{42 apples}}",
            "The answer is 6 times 7, which is 42.",
            "The answer is 43. No, it is 42.",
            "The total is 42 (40 + 2).",
            "- x = 42",
        ],
        [
            "The answer is - 42",
            "\\boxed{- 42}",
            "The answer is not 42 but 41.",
            "\\boxed{41} (not \\boxed{42})",
            "The answer is 42. Wait, actually it is 41.",
            "\\boxed{\\text{42 or 43}}",
            "The total is 45 (42 + 3).",
            "**45** (42 plus 3)",
            "43!",
            "\\boxed{\\text{41 apples}}",
        ],
    ),
    (
        "41",
        ["The answer is 42. Wait, actually it is 41.", "The answer is 42. Wait, it should be 41."],
        ["The answer is 42.", "\\boxed{42} (not \\boxed{41})"],
    ),
    ("-42", ["-42", "- 42", "The answer is - 42"], ["42", "- 41", "- x = 42"]),
    ("120", ["The answer is 5!", "5!", "$5!$"], ["6!", "\\boxed{4!}"]),
    ("5!", ["5!", "\\boxed{5!}", "120"], ["4!"]),
    ("5", ["- x=5", "- $5$", "- $x = 5$"], ["- x=6", "- 6"]),
    ("50\\%", ["- 50\\%", "- 50%"], ["- 5%"]),
    ("3/4", ["- 3/4", "* 3/4"], ["- 4/3"]),
    ("-7", ["- -7"], ["- -8"]),
    ("2x^2 - 3x", ["$$\n2x^2\n- 3x\n$$", "\\boxed{2x^2\n- 3x}"], ["$$\n2x^2\n+ 3x\n$$"]),
    (
        "7",
        ["x = 42, y = 7", "- 7 apples\n- 7 pears\n\nThe answer is 7."],
        ["x = 7, y = 42", "x = 1, x = 7"],
    ),
    (
        "\\mathbf{1\\frac{1}{2}}",
        ["\\boxed{\\mathbf{1\\frac{1}{2}}}", "3/2"],
        ["\\boxed{\\mathbf{1\\frac{1}{3}}}", "1"],
    ),
    ("\\mathbf{2^{10}}", ["\\boxed{\\mathbf{2^{10}}}", "1024"], ["\\boxed{\\mathbf{2^{11}}}", "2"]),
    (
        "\\mathbf{\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}}",
        [
            "\\boxed{\\mathbf{\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}}}",
            "\\boxed{\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}}",
        ],
        ["\\boxed{\\mathbf{\\begin{pmatrix}1&3\\\\2&4\\end{pmatrix}}}"],
    ),
    (
        "2\\sqrt{3}",
        ["The answer is 2√3.", "It is 2√3 cm.", "It is 2√3."],
        ["It is 3√2 cm.", "It is √3.", "The answer is 3."],
    ),
    (
        "3\\times 10^8",
        ["The speed is 3×10^8 m/s.", "It is 3x10^8", "It is 3×10⁸."],
        ["It is 3x10^7", "The speed is 3×10^9 m/s."],
    ),
    ("45", ["The total is 45 (42 + 3).", "**45** (42 plus 3)"], ["The total is 42 (45 - 3)."]),
    (
        "1500000",
        ["\\boxed{1.5\\text{ million}}", "\\boxed{1.5 \\text{ million}}"],
        ["\\boxed{1.5\\text{ billion}}", "\\boxed{15\\text{ million}}"],
    ),
]

CHOICE += [
    (
        "A",
        4,
        [
            "The answer is A here.",
            "The answer is A given the facts.",
            "The answer is A after all.",
            "The answer is A according to the text.",
            "The answer is A from the table.",
            "The answer is A while B is wrong",
            "I choose A here.",
            "The answer is A instead of B.",
            "The answer is A over B.",
            "The answer is A even though B looks good.",
            "The answer is option A instead of option B.",
            "I choose A over B.",
            "Answer: A instead of B",
            "The answer is A unlike C",
            "I pick A even though it is odd.",
            "Answer: A given that B fails",
            "A instead of B.",
            "The answer is A (not B) here",
        ],
        [
            "The Answer Is A Car",
            "A given number of cars is red.",
            "Answer: A car needs fuel.",
            "The answer is a here and now.",
            "A while ago I saw B.",
        ],
    ),
    (
        "I",
        10,
        ["The answer is I given the numerals", "I choose I here."],
        ["The answer is I think J", "The answer is what I computed."],
    ),
    (
        "C",
        4,
        [
            "C. Option A is about cats.",
            "c\n\nA and B do not apply.",
            "The answer is ‘c’.",
            "C\n\nA and B do not apply here since they contradict the second equation.",
            "正解はCです。",
            "選C",
            "The answer is B. Actually, it is C.",
        ],
        ["C is not right. Option A is.", "选项C是错误的", "C不正确", "选B，不选C"],
    ),
    (
        "D",
        4,
        ["The answer is B. Wait, it should be D.", "The answer is B. No, it's D."],
        ["The answer is D. Wait, it should be B."],
    ),
    (
        "B",
        4,
        [
            "b\n\nBecause of gravity.",
            "(b)\n\n(a) is wrong.",
            "b is correct",
            "It is b.",
            "it's b",
            "therefore b",
            "I'd go for b",
            "My pick is b",
            "Ans: b",
            "正解はB",
            "Bが正解です",
            "選択肢Bが正しい",
            "應選B",
            "答案應為B",
            "B选项正确",
            "所以，B是正确答案。",
            "Правильный ответ: В",
            "Ответ: В.",
            "Odpowiedź: b",
            "Jawaban: b",
            "Jawaban: B",
            "\\boxed{B}, not \\boxed{A}",
            "I'd choose b.",
            "So b.",
            "The answer is B instead of A.",
        ],
        [
            "therefore b = 4 holds",
            "It is a dog.",
            "正解はA",
            "В данном случае ответ: C",
            "B不正确",
            "\\boxed{A} (not \\boxed{B})",
        ],
    ),
]

MATH += [
    (
        "42",
        [
            "The answer is 42. Actually, it is 7 more than 35.",
            "We have √9 + 1, and so 42.",
            "It costs $42 and $x$ is not needed.",
            "The value \\(42\\) is right",
            "So \\[ x = 42 \\] holds indeed.",
            "It is $42$ in the end.",
            "Results:\n- 41 apples\n- 42 pears",
            "There were 7 people (3 + 4) and 42 cats.",
            "No, it's 42.",
            "The answer is 42 (see 3 + 4 above).",
            "Wait! 42!",
            "42!!",
            "So 42 it is!",
            "The answer is $42$!",
            "x = 42!",
            "1. 41\n2. 42",
            "The answer is 42. That is 3 more than 39.",
            "42 - that is it",
            "The answer is 42. No, it is not 41.",
            "The answer is not only 42.",
            "\\boxed{42}, instead of \\boxed{40}",
            "Not \\boxed{41}: \\boxed{42}",
            "+ 42",
            "* 42",
            "Total:\n+ 42",
        ],
        [
            "The answer is $5$ and not $42$.",
            "We get -42 in all",
            "5 - 42",
            "x = 5\n- 42",
            "√42",
            "It is not \\boxed{41} but \\boxed{43}",
            "\\boxed{\\text{42 squared}}",
            "\\boxed{\\text{3 or 42}}",
            "42 or 43",
        ],
    ),
    (
        "-5",
        [
            "The answer is:\n- 5",
            "- \\frac{10}{2}",
            "The result is -5 (3 - 8).",
            "-5!",
            "Answer: **- 5**",
        ],
        ["* 5", "+ 5"],
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
    (
        "\\frac{\\sqrt3}{2}",
        ["So the sine is √3/2.", "It equals √3/2 in this case."],
        ["So it is √3."],
    ),
    ("1,2", ["x = 1, y = 2", "The answers are 1, 2.", "x = 1, x = 2", "1,2"], ["x = 2", "2,1,1"]),
    (
        "1000",
        ["1,000", "The answer is 1,000.", "- 1,000", "It is 1,000!", "1000!"],
        ["1,000,000", "1,00"],
    ),
    ("1.000", ["1,000", "1", "1.0"], ["2,000"]),
    ("2.5", ["2,5", "The answer is 2,50."], ["2,500"]),
    ("2500", ["2,500", "€2,500", "2.500,00"], ["2,5"]),
    ("6", ["3!", "6!", "The answer is 3!", "The answer is 6!"], ["4!"]),
    ("\\boldsymbol{\\frac{1}{2}}", ["1/2", "\\boxed{\\boldsymbol{\\frac{1}{2}}}"], ["2"]),
    ("\\mathbf{v}", ["\\boxed{\\mathbf{v}}"], ["\\boxed{\\mathbf{w}}"]),
    (
        "\\text{42 apples}",
        ["42", "42 apples", "\\boxed{42}", "\\boxed{\\text{42 apples}}"],
        ["41 apples", "\\boxed{\\text{41 apples}}"],
    ),
    ("3x-2", ["\\[\n3x\n- 2\n\\]"], []),
    (
        "3000000",
        ["\\boxed{3\\text{ million}}", "$3 \\text{ million}$", "3 million"],
        ["\\boxed{3}"],
    ),
]

CHOICE += [
    (
        "B",
        4,
        [
            "Ⓑ",
            "В",
            "(В)",
            "Ответ: **В**",
            "\\boxed{В}",
            "The answer is B. A is wrong, actually it is a trap.",
            "B.\n\nA is a trap.",
            "B\nA and C are out.",
            "B. The option A is too small.",
            "正解は B です",
            "選択肢Bです",
            "Bは正しい",
            "答案：(B)",
            "选项B正确，选项A错误",
            "A不正确，B正确",
            "Ans. B",
            "ans = b",
            "My guess is B",
            "I'm going for B.",
            "I'd pick (b)",
            "So it's b.",
            "Hence, b.",
            "this is b",
            "B is correct. Option A is about cats.",
            "The answer is option B, not option A.",
            "The answer is B as opposed to A.",
            "B (not A)",
            "The answer is B whereas A is wrong.",
            "b) Paris\n\nBecause it is the capital.",
            "I prefer B over A.",
            "The answer is B compared to A.",
        ],
        [
            "It is a dog, so b is a cat",
            "So a b",
            "I am for it",
            "A and B are wrong",
            "The answer is B. Wait, it is A.",
            "Therefore a",
        ],
    ),
    (
        "A",
        4,
        [
            "A\n\nB is wrong.",
            "A. Option B is about cats.",
            "a is correct",
            "It is a.",
            "therefore a",
            "Ans: a",
            "My pick is a",
            "正解はA",
            "A选项正确",
            "Правильный ответ: А",
            "I'd go for A since B fails",
            "The answer is A with B a close second.",
            "Answer: **A** here",
            "I'd choose A here.",
            "I pick A from the list.",
            "The correct option is A given the data.",
            "The answer is most likely A given B is wrong",
            "(A) here",
            "The answer is A too.",
            "We choose A among these.",
            "A must be right.",
            "answer: A despite B",
        ],
        ["A car is what I see", "**A car**", "What a day", "A banana", "So a dog.", "Is it a"],
    ),
    (
        "I",
        10,
        [
            "Option I given the data",
            "I pick I over J.",
            "The answer is I over J.",
            "Answer: I here",
        ],
        [
            "I choose J",
            "So I choose J",
            "Therefore, I conclude J",
            "I'd say J",
            "The answer, I think, is J",
            "Answer: I think it is J",
        ],
    ),
]

# Arithmetic in words, amounts of millions and dozens, notes in parentheses, lists of one item.
MATH += [
    (
        "3000000",
        [
            "It is $3$ million.", r"It is \(3\) million.", r"It costs \$3 million.",
            r"\boxed{$3$ million}", "The answer is $3$ million dollars.",
            "First $2$, then $3$ million.",
        ],
        ["It is $3$ thousand.", r"It costs \$4 million.", "It is $3$."],
    ),
    (
        "42",
        [
            "Answer: 42 (6 x 7)", "Answer: 42 (6 \u00d7 7).", "Answer: 42 (40 + 2)",
            "Answer: 42 (40 plus 2)", "The answer is **42** (6 x 7).", "The answer is 6 times 7.",
            "The answer is half of 84.",
            "The answer is 6 times 7, which is 42.", "The answer is twice 21.", r"It costs \$42.",
            r"So it is \$42 in total.", "The answer is 42 times.", "The answer is 84 divided by 2.",
        ],
        [
            "The answer is 42 factorial", "The answer is 42 times 3", "The answer is 42 plus x",
            "The answer is 42 divided by 2", "The answer is half of 42.",
            "The answer is 42 squared", "Answer: 6 (of 42 x 7)", "The answer is 42 hundred",
        ],
    ),
    ("14", ["The answer is 2 (3 + 4).", "The answer is 2(3+4)."], ["The answer is 3 (2 + 4)."]),
    ("-5", ["So:\n- 5", "The result:\n\n- 5", "Answer:\n- 5"], ["So:\n- 6", "First:\n- 5\n- 6"]),
    ("5", ["So:\n- 5", "The result:\n\n- 5"], ["So:\n- 6"]),
    ("120", ["The answer is 5 factorial.", "The answer is the factorial of 5.",
             "The answer is 10 choose 3."], ["The answer is 120 factorial.", "The answer is 5."]),
    ("32", ["The answer is 2 to the power of 5.", "The answer is 2 raised to the 5th.",
            "The answer is 2 to the 5th power."], ["The answer is 32 to the power of 2."]),
    ("9", [r"\boxed{3 squared}", "The answer is 3 squared."], [r"\boxed{9 squared}"]),
    ("36", ["The answer is 3 dozen eggs.", "She buys 3 dozen.", r"\boxed{3 \text{ dozen}}"],
     ["The answer is 4 dozen eggs.", "She buys 4 dozen."]),
    ("105", [r"\boxed{7!!}", r"\boxed{105}"], [r"\boxed{7!}", r"\boxed{8!!}"]),
    ("42!!", [r"\boxed{42!!}"], [r"\boxed{42!}", r"\boxed{41!!}"]),
    ("205", ["The answer is two hundred and five."], ["The answer is two hundred."]),
    ("500", ["The answer is 5 hundred.", "It costs 5 hundred dollars."],
     ["The answer is 6 hundred."]),
    ("3/4", ["The answer is 3 over 4."], ["The answer is 4 over 3."]),
]  # fmt: skip
