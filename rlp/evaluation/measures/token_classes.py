r"""The class of each token by a rule on its word: number, name, code, function word or other.

A word is a run of characters without white space; a token belongs to the word of its last character
that is not white space. The rules apply in this order, to the word without the punctuation around
it:

    number    it consists of digits, with signs, separators, currency or units of up to three
              letters: 12, 3.14, 1,000, $5, 20%, 5km, 1st
    code      it contains a character of programs or formulas (_ { } < > = \ | ^ ` ~ #), "://", a
              bracket or a dot between letters (f(x), os.path), or begins with small letters and
              has a capital later (camelCase)
    function  it is in a list of English function words (articles, pronouns, prepositions,
              conjunctions, auxiliaries, particles); case, n't and what
              follows an apostrophe are ignored
    name      it begins with a capital and is not the first word of a sentence or of a line, or it
              has at least two letters, all of them capitals
    other     everything else

A token without a letter or digit (punctuation, white space) is code in a word of code, and else
other. The rule is crude: a name at the beginning of a sentence is other, and so is a number that is
written as a word; the list of function words is English.
"""

import re

import numpy as np

from rlp.data.located_text import LocatedText

CLASSES = ("number", "name", "code", "function", "other")
_FUNCTION_WORDS = """
    a an the this that these those each every either neither some any no all both half such what
    which whose another other many much more most few fewer little less several enough
    i me my mine myself you your yours yourself yourselves he him his himself she her hers herself
    it its itself we us our ours ourselves they them their theirs themselves one oneself who whom
    someone somebody something anyone anybody anything everyone everybody everything nobody nothing
    none here there where when why how
    about above across after against along among around as at before behind below beneath beside
    besides between beyond by despite down during except for from in inside into like near of off
    on onto out outside over past per since through throughout till to toward towards under
    underneath until unto up upon via with within without
    and but or nor so yet if then else than because although though while whereas whether unless
    be am is are was were been being have has had having do does did doing done can could may might
    must shall should will would ought need dare used
    ain ca sha wo not also too very just only even still again ever never always once thus hence
    therefore however
    """
FUNCTION_WORDS = frozenset(_FUNCTION_WORDS.split())
_AROUND = "\"'“”‘’.,;:!?()[]{}…—–-*_`"
_NUMBER = re.compile(r"[-+±]?[$€£¥]?\d[\d.,:/%°-]*[a-zA-Z]{0,3}%?")
_CODE = re.compile(r"[_{}<>=\\|^`~#]|://|\w\w\.\w\w|\w[(\[]\w|\w[)\]]\w|^[a-z]+[A-Z]")
_CODE_AROUND = re.compile(r"[{}`]|\w\(\)")  # in the punctuation around a word
_AFTER_APOSTROPHE = re.compile(r"(n['’]t|['’]\w+)$")
_ENDS_SENTENCE = re.compile(r"[.!?:;][\"'”’)\]]*\s*$|\n\s*$|^\s*$")


def classify(document: LocatedText) -> np.ndarray:
    """Return the class of every token of a document, as indices of `CLASSES`, int64 [n]."""
    words = list(re.finditer(r"\S+", document.text))
    starts = np.array([word.start() for word in words], np.int64)
    kinds = [_class_of(document.text, word) for word in words]
    classes = np.full(len(document.ids), CLASSES.index("other"))
    for token, (start, end) in enumerate(document.spans.tolist()):
        piece = document.text[start:end].rstrip()
        if not piece.strip():
            continue
        kind = kinds[int(np.searchsorted(starts, start + len(piece) - 1, side="right")) - 1]
        if kind == "code" or any(character.isalnum() for character in piece):
            classes[token] = CLASSES.index(kind)
    return classes


def _class_of(text: str, word: re.Match[str]) -> str:
    whole = word[0]
    core = whole.strip(_AROUND)
    if _NUMBER.fullmatch(core):
        return "number"
    if _CODE.search(core) or _CODE_AROUND.search(whole):
        return "code"
    if _AFTER_APOSTROPHE.sub("", core.lower()) in FUNCTION_WORDS:
        return "function"
    letters = [character for character in core if character.isalpha()]
    if len(letters) > 1 and core.isupper():
        return "name"
    before = text[max(0, word.start() - 16) : word.start()]
    begins = word.start() < 16 and not before.strip() or bool(_ENDS_SENTENCE.search(before))
    return "name" if core[:1].isupper() and not begins else "other"
