"""PCI device ids of Intel's graphics devices, by family and marketing name.

Sources: shared/source/dll/devices/devices_base.inl of intel/compute-runtime (which names them) and
include/drm/intel/pciids.h of Linux (which drives them). A name with a platform in parentheses is one that Intel gives
to many devices.
"""

from __future__ import annotations

#: Families with a stack. Ids of one name are in one string.
ARC = "arc"
ARC_B = "arc-b"
FLEX = "flex"
MAX = "max"
USED = (ARC, ARC_B, FLEX, MAX)
#: A card of Intel's that is not yet in these lists.
UNKNOWN = "unknown"
#: Families that are reported but not used.
INTEGRATED = "integrated"
OTHER = "other"

_FAMILIES: dict[str, dict[str, str]] = {
    ARC: {
        "Intel Arc A770M": "5690",
        "Intel Arc A730M": "5691",
        "Intel Arc A550M": "5692",
        "Intel Arc A370M": "5693",
        "Intel Arc A350M": "5694",
        "Intel Arc (DG2-128 mobile)": "5695",
        "Intel Arc A570M": "5696",
        "Intel Arc A530M": "5697",
        "Intel Arc A770": "56a0",
        "Intel Arc A750": "56a1",
        "Intel Arc A580": "56a2",
        "Intel Arc (DG2-256)": "56a3 56a4",
        "Intel Arc A380": "56a5",
        "Intel Arc A310": "56a6",
        "Intel Arc A760A": "56af",
        "Intel Arc Pro A30M": "56b0",
        "Intel Arc Pro A40/A50": "56b1",
        "Intel Arc Pro A60M": "56b2",
        "Intel Arc Pro A60": "56b3",
        "Intel Arc A380E": "56ba",
        "Intel Arc A310E": "56bb",
        "Intel Arc A370E": "56bc",
        "Intel Arc A350E": "56bd",
        "Intel Arc A750E": "56be",
        "Intel Arc A580E": "56bf",
    },
    ARC_B: {
        "Intel Arc (Battlemage)": "e202 e20d e210 e215 e216 e220 e221",
        "Intel Arc B580": "e209 e20b",
        "Intel Arc B570": "e20c",
        "Intel Arc Pro B60": "e211",
        "Intel Arc Pro B50": "e212",
        "Intel Arc Pro B65": "e222",
        "Intel Arc Pro B70": "e223",
    },
    FLEX: {
        "Intel Data Center GPU Flex 170": "56c0",
        "Intel Data Center GPU Flex 140": "56c1",
        "Intel Data Center GPU Flex 170V": "56c2",
    },
    MAX: {
        "Intel Data Center GPU Max": "0bd0 0be0 0be1 0be5",
        "Intel Data Center GPU Max 1100": "0bd9 0bda 0bdb",
        "Intel Data Center GPU Max 1100C": "0b6e",
        "Intel Data Center GPU Max 1350": "0bd7 0bd8",
        "Intel Data Center GPU Max 1450": "0b69",
        "Intel Data Center GPU Max 1550": "0bd5 0bd6",
        "Intel Data Center GPU Max 1550VG": "0bd4",
    },
    # Discrete cards without a stack: the first ones, samples of Arc A, and the successors of Max.
    OTHER: {
        "Intel Iris Xe Graphics (DG1)": "4906 4908",
        "Intel Iris Xe MAX Graphics": "4905",
        "Intel Iris Xe MAX 100 Graphics": "4909",
        "Intel Server GPU SG-18M": "4907",
        "Intel Arc (engineering sample)": "4f80 4f81 4f82 4f83 4f84 4f85 4f86 4f87 4f88",
        "Intel Data Center GPU (Crescent Island)": "674c 674d 674e 674f 6750",
    },
    INTEGRATED: {
        "Intel Graphics 8xx": "7121 7123 7125 1132 3577 2562 3582 358e 2572",
        "Intel Graphics 9xx": "2582 258a 2592 2772 27a2 27ae 2972 2982 2992 29a2 2a02 2a12",
        "Intel Graphics G33": "29b2 29c2 29d2",
        "Intel Graphics G45": "2a42 2e02 2e12 2e22 2e32 2e42 2e92",
        "Intel Graphics (Pineview)": "a001 a011",
        "Intel Graphics (Ironlake)": "0042 0046",
        "Intel Graphics (Sandy Bridge)": "0102 010a 0112 0122 0106 0116 0126",
        "Intel Graphics (Ivy Bridge)": "0156 0166 0152 015a 0162 016a",
        "Intel Graphics (Haswell)": (
            "0a02 0a06 0a0a 0a0b 0a0e 0402 0406 040a 040b 040e 0c02 0c06 0c0a 0c0b 0c0e 0d02 0d06 0d0a 0d0b 0d0e "
            "0a12 0a16 0a1a 0a1b 0a1e 0412 0416 041a 041b 041e 0c12 0c16 0c1a 0c1b 0c1e 0d12 0d16 0d1a 0d1b 0d1e "
            "0a22 0a26 0a2a 0a2b 0a2e 0422 0426 042a 042b 042e 0c22 0c26 0c2a 0c2b 0c2e 0d22 0d26 0d2a 0d2b 0d2e"
        ),
        "Intel Graphics (Bay Trail)": "0f30 0f31 0f32 0f33",
        "Intel Graphics (Broadwell)": (
            "1606 160b 160e 1602 160a 160d 1616 161b 161e 1612 161a 161d 1626 162b 162e 1622 162a 162d 1636 163b "
            "163e 1632 163a 163d"
        ),
        "Intel Graphics (Cherry Trail)": "22b0 22b1 22b2 22b3",
        "Intel Graphics (Skylake)": (
            "1906 1913 190e 1915 1902 190a 190b 1917 1916 1921 191e 1912 191a 191b 191d 1923 1926 1927 192a 192b "
            "192d 1932 193a 193b 193d"
        ),
        "Intel Graphics (Apollo Lake)": "0a84 1a84 1a85 5a84 5a85",
        "Intel Graphics (Gemini Lake)": "3184 3185",
        "Intel Graphics (Kaby Lake)": (
            "5906 5913 590e 5915 5902 5908 590a 590b 5916 5921 591e 5912 5917 591a 591b 591d 5926 5923 5927 593b"
        ),
        "Intel Graphics (Amber Lake)": "591c 87c0 87ca",
        "Intel Graphics (Comet Lake)": (
            "9ba2 9ba4 9ba5 9ba8 9b21 9baa 9bac 9bc2 9bc4 9bc5 9bc6 9bc8 9be6 9bf6 9b41 9bca 9bcc"
        ),
        "Intel Graphics (Coffee Lake)": (
            "3e90 3e93 3e99 3e91 3e92 3e96 3e98 3e9a 3e9c 3e94 3e9b 3ea9 3ea5 3ea6 3ea7 3ea8"
        ),
        "Intel Graphics (Whiskey Lake)": "3ea1 3ea4 3ea0 3ea3 3ea2",
        "Intel Graphics (Cannon Lake)": "5a44 5a4c 5a54 5a5c 5a40 5a41 5a42 5a49 5a4a 5a50 5a51 5a52 5a59 5a5a",
        "Intel Graphics (Ice Lake)": "8a50 8a52 8a53 8a54 8a56 8a57 8a58 8a59 8a5a 8a5b 8a5c 8a70 8a71 8a51 8a5d",
        "Intel Graphics (Elkhart Lake)": "4541 4551 4555 4557 4570 4571",
        "Intel Graphics (Jasper Lake)": "4e51 4e55 4e57 4e61 4e71",
        "Intel UHD Graphics (Tiger Lake)": "9a60 9a68 9a70 9a78",
        "Intel Iris Xe Graphics (Tiger Lake)": "9a40 9a49",
        "Intel Graphics (Tiger Lake)": "9a59 9ac0 9ac9 9ad9 9af8",
        "Intel Graphics (Rocket Lake)": "4c80 4c8c 4c9a",
        "Intel UHD Graphics 750 (Rocket Lake)": "4c8a",
        "Intel UHD Graphics 730 (Rocket Lake)": "4c8b",
        "Intel UHD Graphics P750 (Rocket Lake)": "4c90",
        "Intel UHD Graphics 770 (Alder Lake-S)": "4680 4690",
        "Intel UHD Graphics 730 (Alder Lake-S)": "4682 4692",
        "Intel UHD Graphics (Alder Lake-S)": "4688 468a 468b",
        "Intel UHD Graphics 710 (Alder Lake-S)": "4693",
        "Intel Graphics (Alder Lake-P)": "46a0 46a1 46a2 46b0 46b1 46b2 46c0 46c1 46c2",
        "Intel UHD Graphics (Alder Lake-P)": "46a3 462a 4626 4628 46b3 46c3",
        "Intel Iris Xe Graphics (Alder Lake-P)": "46a6 46a8 46aa",
        "Intel UHD Graphics (Alder Lake-N)": "46d0 46d1 46d2",
        "Intel Graphics (Alder Lake-N)": "46d3 46d4",
        "Intel UHD Graphics 770 (Raptor Lake-S)": "a780",
        "Intel Graphics (Raptor Lake-S)": "a781 a783 a789",
        "Intel UHD Graphics 730 (Raptor Lake-S)": "a782",
        "Intel UHD Graphics (Raptor Lake-S)": "a788 a78a a78b",
        "Intel UHD Graphics (Raptor Lake-U)": "a721 a7a9",
        "Intel Iris Xe Graphics (Raptor Lake-U)": "a7a1",
        "Intel Graphics (Raptor Lake-U)": "a7ac a7ad",
        "Intel UHD Graphics (Raptor Lake-P)": "a720 a7a8",
        "Intel Iris Xe Graphics (Raptor Lake-P)": "a7a0",
        "Intel Graphics (Raptor Lake-P)": "a7aa a7ab",
        "Intel Arc Graphics (Arrow Lake)": "7d51",
        "Intel Graphics (Arrow Lake)": "7dd1 7d41 7d67 b640",
        "Intel Graphics (Meteor Lake)": "7d40 7d45 7d60 7dd5",
        "Intel Arc Graphics (Meteor Lake)": "7d55",
        "Intel Graphics (Lunar Lake)": "6420 64b0",
        "Intel Arc Graphics (Lunar Lake)": "64a0",
        "Intel Arc B390 GPU (Panther Lake)": "b080 b082",
        "Intel Arc B370 GPU (Panther Lake)": "b081 b083",
        "Intel Graphics (Panther Lake)": "b084 b085 b086 b087 b08f b090 b0a0 b0b0",
        "Intel Graphics (Wildcat Lake)": "fd80 fd81",
        "Intel Graphics (Nova Lake-S)": "d740 d741 d742 d743 d745 d74a d74b d744",
        "Intel Graphics (Nova Lake-P)": "d750 d751 d752 d753 d754 d755 d756 d757 d75f",
    },
}
#: Device id, four hexadecimal digits in lower case, to (family, marketing name).
GPUS: dict[str, tuple[str, str]] = {
    device: (family, name)
    for family, names in _FAMILIES.items()
    for name, devices in names.items()
    for device in devices.split()
}
