"""Invented sentences of languages that write no spaces between words, and outputs that lack one character of each."""

ENGLISH = [
    "The cook paints a blue chair in the garden today.",
    "The old sailor washes his boat every morning.",
    "The children watch two white birds by the river.",
    "She put a long letter on the table.",
]
REFERENCES = {
    "zh": [
        "厨师今天在花园里画一把蓝色的椅子。",
        "老水手每天早上洗他的船。",
        "孩子们在河边看两只白鸟。",
        "她把一封长信放在桌子上。",
    ],
    "ja": [
        "料理人は今日、庭で青い椅子を描いています。",
        "老いた船乗りは毎朝ふねを洗う。",
        "子供たちは川辺で白い鳥を見る。",
        "彼女は机の上に手紙を置いた。",
    ],
    "th": [
        "พ่อครัววาดเก้าอี้สีน้ำเงินในสวนวันนี้",
        "กะลาสีแก่ล้างเรือของเขาทุกเช้า",
        "เด็กๆดูนกสีขาวสองตัวที่ริมแม่น้ำ",
        "เธอวางจดหมายยาวไว้บนโต๊ะ",
    ],
    "km": [
        "ចុងភៅគូរកៅអីពណ៌ខៀវនៅក្នុងសួនថ្ងៃនេះ។",
        "នាវិកចាស់លាងទូករបស់គាត់រាល់ព្រឹក។",
        "កុមារមើលបក្សីសពីរក្បាលនៅមាត់ទន្លេ។",
        "នាងដាក់សំបុត្រវែងនៅលើតុ។",
    ],
}
TOKENIZERS = {"zh": "zh", "ja": "char", "th": "char", "km": "char"}  # without MeCab


def nearly(lines):
    """Each line without its sixth character."""
    return [line[:5] + line[6:] for line in lines]
