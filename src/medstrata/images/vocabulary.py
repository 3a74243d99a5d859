"""Plain codes from header text: whatever is not a known word of the field becomes "".

Descriptions, models and kernels are typed by people and may hold names. So nothing of them is passed on as it stands:
every function returns only words out of the tables below. Manufacturers, models, views and kernels that are not in them
become ``other 3f2a9c``, a keyed hash, in the catalog: different ones stay different. Terms follow DICOM PS3.3
C.7.3.1.1.1 (modality), PS3.16 Annex L (body part) and PS3.3 C.8.1.2 / C.8.4.5 (view), kernels and models the vendors'
conformance statements.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

DIFFERENT_TEXTS = 1024  # remembered: a series says the same in every file


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


MODALITIES = _words(
    """ANN AR ASMT AU BDUS BI BMD CFM CR CT CTPROTOCOL DG DMS DOC DX ECG EEG EMG EOG EPS ES FID GM HC HD IO IOL IVOCT
    IVUS KER KO LEN LS M3D MG MR NM OAM OCT OP OPM OPR OPT OPTBSV OPTENF OPV OSS OT PA PLAN POS PR PT PX REG RESP RF RG
    RTDOSE RTIMAGE RTINTENT RTPLAN RTRAD RTRECORD RTSEGANN RTSTRUCT RWV SC SEG SM SMR SR SRF STAIN TEXTUREMAP TG US VA
    XA XC XAPROTOCOL"""
)

PHOTOMETRICS = _words(
    """MONOCHROME1 MONOCHROME2 RGB YBR_FULL YBR_FULL_422 YBR_PARTIAL_420 YBR_PARTIAL_422 YBR_ICT YBR_RCT XYB HSV ARGB
    CMYK"""
) | {"PALETTE COLOR"}

BODY_PARTS = _words(
    """abdomen abdomenpelvis adrenal ankle aorta arm axilla back bladder brain breast bronchus buttock calcaneus calf
    carotid cerebellum cervix cheek chest chestabdomen chestabdpelvis chestabdomenpelvis clavicle coccyx colon cornea
    coronaryartery cspine ctspine duodenum ear elbow entirebody esophagus extremity eye eyelid face femur finger foot
    gallbladder hand head headneck heart hip humerus iac ileum ilium jaw jejunum kidney knee larynx leg liver lspine
    lsspine lung lungs mandible maxilla mediastinum mouth neck neckchest neckchestabdomen neckchestabdpelvis nose orbit
    ovary pancreas parotid patella pelvis penis pharynx pituitary prostate radius radiusulna rectum rib ribs sacrum
    scalp scapula sella shoulder sijoint sinus skull spine spleen sspine sternum stomach submandibular testis thigh
    thorax throat thumb thymus thyroid tibia tibiafibula tlspine tmj toe tongue tooth trachea tspine ulna ureter urethra
    uterus vagina vulva wholebody wrist zygoma"""
)

VIEWS = _words(
    """AP PA LL RL RLD LLD RLO LLO LAT LATERAL LAO RAO CC MLO ML LM LMO SIO ISO FB AXIAL OBL OBLIQUE FRONTAL ANTERIOR
    POSTERIOR"""
)

_MANUFACTURERS = (  # first match wins; what stands in the record is the first word of the pair
    ("Siemens", r"siemens"),
    ("Philips", r"philips|picker|marconi|adac"),
    ("GE", r"\bg\.?e\b|general electric|gems\b|\blunar\b"),
    ("Canon/Toshiba", r"canon|toshiba"),
    ("Fujifilm", r"fuji"),
    ("Hitachi", r"hitachi"),
    ("Hologic", r"hologic|lorad"),
    ("Agfa", r"agfa"),
    ("Carestream/Kodak", r"carestream|kodak"),
    ("Konica Minolta", r"konica|minolta"),
    ("Samsung", r"samsung|medison|neurologica"),
    ("United Imaging", r"united imaging|\buih\b"),
    ("Shimadzu", r"shimadzu"),
    ("Neusoft", r"neusoft"),
    ("Mindray", r"mindray"),
    ("Esaote", r"esaote"),
    ("Varian", r"varian"),
    ("Elekta", r"elekta"),
    ("Bruker", r"bruker"),
    ("Hyperfine", r"hyperfine"),
)
_MODEL_WORDS = _words(
    """achieva acuson affirm aera affiniti alphenix altea amira ambition aplio aquilion artis asteion
    avanto axiom aura azurion biograph brightspeed brilliance cardiomd cios dimensions discovery definition eclipse
    drive drx elora elition emotion epiq epixis espree essenza explorer face flash force gemini genesis go gyroscan
    hispeed iac icube incisive infinix infinia ingenia ingenuity innova integris intera iqon ix juniper
    lightspeed logiq lumina magnetom millennium mmr mobilett multix mx naeotom open optima orian panorama perspective
    precision pristina prisma revolution scenaria selenia senographe sensation sequoia signa skylight skyra sola
    somatom sonata spectral spirit supria symbia symphony titan trio truebeam ultra vantage verio vida vision vivid
    volume xperience ysio zoom"""
)
_MODEL_SUFFIXES = _words("as as+ ct mr mri pet spect hd hdx hde hdxt xt nx tx x w edge plus one prime alpha")
_MODEL_NUMBER = re.compile(r"(ct|mr|mx|go\.?|ge|e|s|t)?(\d{1,4})(\.\d)?(w|t|hd|es|x|s)?")

_KERNEL_WORDS = _words(
    """standard std soft smooth smth lung bone boneplus detail edge chest chst ultra sharp shrp brain head body asir
    a b c d e f l ya yb yc yd ye ua ub uc ea eb ec xres xcb xca xcc ecb ipb bv br bl hr"""
)
_KERNEL_CODE = re.compile(r"(b|bl|br|bv|bf|h|hr|hf|hc|hv|hp|i|j|u|ur|t|tr|d|q|qr|s|sa|sb)\d{2}[a-z]?|fc\d{2}")

_SERIES_CLASSES = (  # first match wins
    ("localizer", r"locali[sz]er|\bloc\b|3.?plane|three.?plane|survey|plan.?scan"),
    ("scout", r"scout|topogram|scanogram|surview"),
    ("dose", r"\bdose\b|patient protocol|exam protocol"),
    ("screenshot", r"screen ?(save|shot|capture)|snapshot"),
    ("adc", r"\badc\b|apparent diffusion"),
    ("dwi", r"\bdwi\b|diffusion|\bdti\b|trace ?w|\bb ?=? ?(500|800|1000|1500|2000)\b"),
    ("perfusion", r"perfusion|\bpwi\b|\bdsc\b|\bdce\b|\basl\b|\bcbf\b|\bcbv\b|\bmtt\b|\bttp\b"),
    ("bold", r"\bbold\b|\bfmri\b|resting.?state"),
    ("swi", r"\bswi\b|\bswan\b|\bsusceptib|\bvenobold\b"),
    ("mra", r"\bmra\b|\btof\b|angio|\bmrv\b"),
    ("flair", r"flair"),
    ("stir", r"\bstir\b"),
    ("t2star", r"t2 ?\*|t2.?star|\bt2s\b"),
    ("t2", r"\bt2"),
    ("pd", r"\bpd|proton"),
    ("cine", r"\bcine\b|\bfiesta\b|\btruefisp\b|\bssfp\b"),
    ("t1", r"\bt1|mp.?rage|bravo|\bspgr\b|\bvibe\b"),
    ("cta", r"\bcta\b"),
    ("calcium score", r"ca.?sc(ore)?\b|calcium"),
    ("lung", r"\blung\b|pulm|\bhrct\b"),
    ("bone", r"\bbone\b|\bbony\b"),
    ("soft tissue", r"soft.?tissue|mediast|\bsoft\b"),
    ("contrast", r"contrast|\bpost ?(gd|gad)?\b|arterial|portal|venous|\bgad\b|\+ ?[ck]\b|\bce\b"),
    ("mpr", r"\bmpr\b|reformat|\bmip\b"),
)
_SERIES_PATTERNS = tuple((name, re.compile(pattern)) for name, pattern in _SERIES_CLASSES)
_MANUFACTURER_PATTERNS = tuple((name, re.compile(pattern)) for name, pattern in _MANUFACTURERS)
SERIES_CLASSES = frozenset(name for name, _ in _SERIES_CLASSES)
MANUFACTURERS = frozenset(name for name, _ in _MANUFACTURERS) | {""}

_OTHER = re.compile(r"other [0-9a-f]{6}")
OTHER_DIGITS = 6  # hexadecimal: short to read, and two of a hundred different texts are alike once in 3,000 runs

_AXES = ("sagittal", "coronal", "axial")  # plane whose normal is the x, y, z axis of the patient
OBLIQUE_BELOW = 0.8  # cosine between the normal and its nearest axis (37 degrees) below which a plane is "oblique"


def modality(text: str) -> str:
    """Return a defined term of Modality, or ""."""
    code = text.strip().upper()
    return code if code in MODALITIES else ""


def photometric(text: str) -> str:
    """Return a defined term of Photometric Interpretation, or ""."""
    code = text.strip().upper()
    return code if code in PHOTOMETRICS else ""


@lru_cache(DIFFERENT_TEXTS)
def body_part(text: str) -> str:
    """Return a known body part in lower case without blanks ("chest", "cspine"), or ""."""
    code = re.sub(r"[ _/-]+", "", text.lower())
    return code if code in BODY_PARTS else ""


@lru_cache(DIFFERENT_TEXTS)
def view(text: str) -> str:
    """Return a known view position ("PA", "MLO"), or ""."""
    code = text.strip().upper()
    return code if code in VIEWS else ""


@lru_cache(DIFFERENT_TEXTS)
def manufacturer(text: str) -> str:
    """Return the vendor's common name, "" for one that is not known."""
    lower = text.lower()
    return next((name for name, pattern in _MANUFACTURER_PATTERNS if pattern.search(lower)), "")


@lru_cache(DIFFERENT_TEXTS)
def model(text: str) -> str:
    """Return the known words and numbers of a scanner's model in lower case ("somatom definition as+"), or "".

    A text without at least one known family of scanners gives "".
    """
    words = re.split(r"[\s_,/()-]+", text.lower())
    kept = [word for word in words if word in _MODEL_WORDS or word in _MODEL_SUFFIXES or _is_model_number(word)]
    return " ".join(kept) if any(word in _MODEL_WORDS for word in kept) else ""


def _is_model_number(word: str) -> bool:
    match = _MODEL_NUMBER.fullmatch(word)
    return match is not None and not 1800 < int(match[2]) < 2200  # a year could be a date of birth


@lru_cache(DIFFERENT_TEXTS)
def kernel(text: str) -> str:
    """Return a known reconstruction kernel in lower case ("b30f", "standard", "fc08"), or ""."""
    code = text.strip().lower()
    return code if code in _KERNEL_WORDS or _KERNEL_CODE.fullmatch(code) else ""


def other(code: str) -> str:
    """Return the short name of a text that is in no table; ``code``: ``OTHER_DIGITS`` digits of its keyed hash."""
    return f"other {code}"


def is_other(name: str) -> bool:
    """Whether ``name`` is what ``other`` returned."""
    return _OTHER.fullmatch(name) is not None


def series_class(descriptions: Sequence[str]) -> str:
    """Return the class that series and protocol descriptions and image types speak of (``SERIES_CLASSES``), or ""."""
    return _series_class(" ".join(descriptions))


@lru_cache(DIFFERENT_TEXTS)
def _series_class(descriptions: str) -> str:
    text = descriptions.lower().replace("_", " ")
    return next((name for name, pattern in _SERIES_PATTERNS if pattern.search(text)), "")


def orientation_name(normal: Sequence[float]) -> str:
    """Return "axial", "coronal", "sagittal" or "oblique" for the unit normal (x, y, z) of an image plane."""
    sizes = [abs(component) for component in normal]
    largest = max(sizes)
    return _AXES[sizes.index(largest)] if largest >= OBLIQUE_BELOW else "oblique"
