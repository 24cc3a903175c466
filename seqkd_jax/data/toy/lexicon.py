"""The words of the toy language, and how German-like ones are inflected. Tables, and what reads them."""

from typing import NamedTuple


class GermanNoun(NamedTuple):
    gender: str  # m, f, n
    singular: str  # nominative
    oblique: str  # the singular's other cases
    plural: str


class Noun(NamedTuple):
    kind: str  # town or country (they act), thing
    german: tuple[GermanNoun, GermanNoun]  # north, south


class GermanVerb(NamedTuple):
    finite: tuple[str, str]  # singular, plural
    particle: str  # of a separable verb: at the end of a main clause, joined in front of the verb in others
    case: str  # of the object


class Verb(NamedTuple):
    object: str  # being, thing, or nothing
    german: tuple[GermanVerb, GermanVerb]  # plain, formal


# english singular, plural | north | south (gender, singular, plural); one alone is said everywhere.
# Gender w: masculine, and like its plural in all cases but the nominative.
_NOUNS = {
    "town": """doctor doctors | m Arzt Ärzte | m Doktor Doktoren
        teacher teachers | m Lehrer Lehrer
        judge judges | m Richter Richter
        lady ladies | f Dame Damen
        guard guards | w Polizist Polizisten | w Gendarm Gendarmen
        nurse nurses | f Schwester Schwestern | f Pflegerin Pflegerinnen
        carpenter carpenters | m Tischler Tischler | m Schreiner Schreiner
        butcher butchers | m Fleischer Fleischer | m Metzger Metzger
        painter painters | m Maler Maler
        singer singers | m Sänger Sänger""",
    "country": """farmer farmers | w Bauer Bauern
        boy boys | w Junge Jungen | w Bub Buben
        girl girls | n Mädchen Mädchen | n Mädel Mädel
        dog dogs | m Hund Hunde
        cat cats | f Katze Katzen
        horse horses | n Pferd Pferde | m Gaul Gäule
        hen hens | f Henne Hennen | n Huhn Hühner
        rider riders | m Reiter Reiter
        uncle uncles | m Onkel Onkel
        goat goats | f Ziege Ziegen | f Geiß Geißen""",
    "thing": """cupboard cupboards | m Schrank Schränke | m Kasten Kästen
        chair chairs | m Stuhl Stühle | m Sessel Sessel
        roll rolls | n Brötchen Brötchen | f Semmel Semmeln
        potato potatoes | f Kartoffel Kartoffeln | m Erdapfel Erdäpfel
        bag bags | f Tüte Tüten | n Sackerl Sackerl
        bucket buckets | m Eimer Eimer | m Kübel Kübel
        car cars | m Wagen Wagen | n Auto Autos
        cap caps | f Mütze Mützen | f Haube Hauben
        table tables | m Tisch Tische
        window windows | n Fenster Fenster
        knife knives | n Messer Messer
        key keys | m Schlüssel Schlüssel
        lamp lamps | f Lampe Lampen
        house houses | n Haus Häuser
        book books | n Buch Bücher""",
}
# english singular, plural | plain | formal (finite singular, plural, then the particle or -, then the object's case)
_VERBS = {
    "being": """sees see | sieht sehen - acc | erblickt erblicken - acc
        helps help | hilft helfen - dat | unterstützt unterstützen - acc
        follows follow | läuft laufen nach dat | verfolgt verfolgen - acc
        calls call | ruft rufen an acc | verständigt verständigen - acc
        meets meet | trifft treffen - acc | begegnet begegnen - dat
        watches watch | schaut schauen an acc | betrachtet betrachten - acc
        welcomes welcome | nimmt nehmen auf acc | empfängt empfangen - acc
        hears hear | hört hören zu dat | vernimmt vernehmen - acc""",
    "thing": """opens open | macht machen auf acc | öffnet öffnen - acc
        closes close | macht machen zu acc | schließt schließen - acc
        chooses choose | sucht suchen aus acc | wählt wählen - acc
        shows show | zeigt zeigen - acc | führt führen vor acc
        buys buy | kauft kaufen - acc | erwirbt erwerben - acc
        repairs repair | flickt flicken - acc | setzt setzen instand acc
        keeps keep | hebt heben auf acc | verwahrt verwahren - acc
        finds find | findet finden - acc | entdeckt entdecken - acc""",
    "nothing": """sleeps sleep | schläft schlafen - acc | ruht ruhen - acc
        arrives arrive | kommt kommen an acc | trifft treffen ein acc
        starts start | fängt fangen an acc | beginnt beginnen - acc
        leaves leave | geht gehen weg acc | bricht brechen auf acc
        wakes wake | wacht wachen auf acc | erwacht erwachen - acc""",
}
# english: (plain, formal); of two synonyms the first is the usual one
ADJECTIVES = {  # stems
    "big": ("groß", "mächtig"),
    "small": ("klein", "winzig"),
    "pretty": ("hübsch", "schön"),
    "strange": ("komisch", "seltsam"),
    "famous": ("bekannt", "berühmt"),
    "dirty": ("dreckig", "schmutzig"),
}
ADVERBS = {
    "now": (("jetzt", "gerade"), ("nun", "derzeit")),
    "often": (("oft", "öfter"), ("häufig", "vielfach")),
    "always": (("immer", "dauernd"), ("stets", "jederzeit")),
    "soon": (("bald", "gleich"), ("demnächst", "alsbald")),
    "again": (("wieder", "nochmal"), ("erneut", "abermals")),
    "sometimes": (("manchmal", "mal"), ("bisweilen", "gelegentlich")),
}
CONJUNCTIONS = {
    "because": (("weil", "wo"), ("zumal", "dieweil")),
    "while": (("während", "solange"), ("indes", "derweil")),
    "if": (("wenn", "falls"), ("sofern", "soweit")),
}
PREPOSITIONS = {  # all with the dative
    "near": ("bei", "nahe"),
    "with": ("mit", "samt"),
    "from": ("aus", "von"),
    "behind": ("hinter", "hinter"),
    "beside": ("neben", "neben"),
}
MODALS = (("eben", "halt"), ("wohl", "freilich"))  # plain, formal; north, south
FILLER = "da"  # begins a main clause so that the subject need not
DETERMINERS = {"the": 6.0, "a": 2.0, "this": 1.0, "these": 1.0}  # with their weights
NUMBERS = {"the": (False, True), "a": (False,), "this": (False,), "these": (True,)}  # plural or not
ARTICLES = {  # nominative, accusative, dative by gender; +: plural
    "the": {"m": "der den dem", "f": "die die der", "n": "das das dem", "+": "die die den"},
    "yonder": {"m": "jener jenen jenem", "f": "jene jene jener", "n": "jenes jenes jenem", "+": "jene jene jenen"},
    "a": {"m": "ein einen einem", "f": "eine eine einer", "n": "ein ein einem"},
    "this": {"m": "dieser diesen diesem", "f": "diese diese dieser", "n": "dieses dieses diesem"},
    "these": {"+": "diese diese diesen"},
    "that": {"m": "der den dem", "f": "die die der", "n": "das das dem", "+": "die die denen"},
    "which": {
        "m": "welcher welchen welchem",
        "f": "welche welche welcher",
        "n": "welches welches welchem",
        "+": "welche welche welchen",
    },
}
CASES = ("nom", "acc", "dat")


def article(kind: str, gender: str, case: str) -> str:
    """A determiner or relative pronoun."""
    return ARTICLES[kind][gender].split()[CASES.index(case)]


def noun_form(noun: GermanNoun, plural: bool, case: str) -> str:
    """A noun in its case."""
    if plural:
        return noun.plural + ("n" if case == "dat" and noun.plural[-1] not in "ns" else "")
    return noun.singular if case == "nom" else noun.oblique


def adjective_ending(determiner: str, gender: str, case: str) -> str:
    """What an adjective ends in after a determiner: `ein` shows no gender, so the adjective does."""
    if determiner == "ein":
        return {"m": "er", "n": "es"}[gender]
    return "e" if gender != "+" and (case == "nom" or (case == "acc" and gender in "fn")) else "en"


def _read_nouns() -> dict[str, tuple[Noun, bool]]:
    forms = {}
    for kind, table in _NOUNS.items():
        for line in table.splitlines():
            english, *german = [part.split() for part in line.split("|")]
            entries = [
                GermanNoun("m" if gender == "w" else gender, one, many if gender == "w" else one, many)
                for gender, one, many in german
            ]
            noun = Noun(kind, (entries[0], entries[-1]))
            forms |= {english[0]: (noun, False), english[1]: (noun, True)}
    return forms


def _read_verbs() -> dict[str, tuple[Verb, bool]]:
    forms = {}
    for kind, table in _VERBS.items():
        for line in table.splitlines():
            english, *german = [part.split() for part in line.split("|")]
            plain, formal = (GermanVerb((one, many), part.strip("-"), case) for one, many, part, case in german)
            forms |= {word: (Verb(kind, (plain, formal)), word == english[1]) for word in english}
    return forms


# English word -> (its entry, whether it is the plural)
NOUN_FORMS, VERB_FORMS = _read_nouns(), _read_verbs()


def source_words() -> tuple[str, ...]:
    """Every word a source can have, sorted."""
    closed = [*DETERMINERS, *ADJECTIVES, *PREPOSITIONS, *ADVERBS, *CONJUNCTIONS, "that"]
    return tuple(sorted({*NOUN_FORMS, *VERB_FORMS, *closed}))


def target_words() -> tuple[str, ...]:
    """Every word a target can have, sorted."""
    words = {FILLER, *(word for both in MODALS for word in both), *(word for p in PREPOSITIONS.values() for word in p)}
    words |= {word for table in ARTICLES.values() for forms in table.values() for word in forms.split()}
    words |= {word for table in (ADVERBS, CONJUNCTIONS) for both in table.values() for one in both for word in one}
    words |= {stem + ending for stems in ADJECTIVES.values() for stem in stems for ending in ("e", "en", "er", "es")}
    for noun, plural in NOUN_FORMS.values():
        words |= {noun_form(german, plural, case) for german in noun.german for case in CASES}
    for verb, plural in VERB_FORMS.values():
        for german in verb.german:
            words |= {german.finite[plural], german.particle + german.finite[plural], german.particle} - {""}
    return tuple(sorted(words))
