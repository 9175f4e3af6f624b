"""The regions that a song may be blocked in: the two-letter codes of ISO 3166-1."""

from collections.abc import Iterable

from needledrop.errors import ConfigRejected

# From the iso3166.tab of the tz database, 2024. A typing error must not pass for a blocked region.
_CODES = (
    "AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO "
    "BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ "
    "DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP "
    "GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG "
    "KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML "
    "MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE "
    "PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL "
    "SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM "
    "US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW "
)
REGIONS = frozenset(_CODES.split())

# ISO leaves these to whoever needs one: XK is Kosovo in most tables of addresses. A listener may be
# there; nothing can be blocked there, since everyone means something else.
USER_ASSIGNED = frozenset(
    ["AA", "ZZ", *(f"Q{letter}" for letter in "MNOPQRSTUVWXYZ")]
    + [f"X{letter}" for letter in "ABCDEFGHIJKLMNOPQRSTUVWXYZ"]
)
_MEANT = {"UK": "; the United Kingdom is GB", "EL": "; Greece is GR"}


def checked_regions(codes: Iterable[str]) -> frozenset[str]:
    """Region codes in capitals, each once.

    Raises:
        ConfigRejected: one is none of ISO 3166-1's.
    """
    plain = {str(code).upper() for code in codes}
    if unknown := sorted(plain - REGIONS):
        raise ConfigRejected(
            f"expected regions as two-letter codes of ISO 3166-1, such as SE, got {unknown[0]!r}"
            + meant_by(unknown[0])
        )
    return frozenset(plain)


def meant_by(code: str) -> str:
    """Say, for the end of a sentence, which region a code that is none of ISO's stands for."""
    return _MEANT.get(code.upper(), "")
