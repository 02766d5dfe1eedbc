"""Combinations of cards, kernels and packages that do not work, each with its source.

A combination that cannot work is refused; one that may work gives a warning. A single credible report
(confidence M) only warns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ansible_collections.xpu.fleet.plugins.module_utils.gpu.combination import (
    MEDIUM,
    REFUSE,
    WARN,
    KnownBad,
    Range,
    Situation,
    is_there,
)
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpu_ids import ARC, ARC_B

_REBAR = 'turn on "Resizable BAR" (also "Re-Size BAR Support") and "Above 4G Decoding" in the BIOS setup'
_SMALL_BAR = "with a memory window of 256 MiB the compute runtime finds no GPU"
_TOO_OLD = "this compute runtime does not know the card"
_NEWER = "take a newer one: the PPA kobuk-team/intel-graphics (stack_ppa), or Ubuntu 26.04"
_TAGS = "tags of intel/compute-runtime, devices_base.inl"

COMBINATIONS: tuple[KnownBad, ...] = (
    KnownBad(
        name="arc-a-compute-hang",
        devices=(ARC,),
        kernels=(
            Range("6.8.0-38", last="6.8.0-41"),
            Range("6.6.26", last="6.6.32"),
            Range("6.8.5", last="6.9.3"),
        ),
        symptom="compute on Arc A hangs with this kernel",
        remedy="install linux-generic on Ubuntu 24.04; elsewhere take kernel 6.10 or newer",
        source="LP#2072755, intel/compute-runtime#726 and #734",
        effect=REFUSE,
    ),
    KnownBad(
        name="arc-a-on-xe-6.8",
        devices=(ARC,),
        driver="xe",
        kernels=(Range("6.8", before="6.9"),),
        symptom="the runtime aborts on an Arc A that xe was forced to drive",
        remedy="take i915.force_probe=! and xe.force_probe= off the kernel's command line",
        source="intel/compute-runtime#868 and #905",
        effect=REFUSE,
    ),
    KnownBad(
        name="arc-a-on-xe",
        devices=(ARC,),
        driver="xe",
        kernels=(Range("6.9"),),
        symptom="xe drives Arc A as an experiment only, without HuC",
        remedy="take i915.force_probe=! and xe.force_probe= off the kernel's command line",
        source="Linux 6.12 to 7.0, xe_pci.c (xe_dg2 requires force_probe)",
    ),
    KnownBad(
        name="small-bar-on-xe",
        devices=(ARC_B,),
        small_bar=True,
        symptom=_SMALL_BAR,
        remedy=_REBAR,
        source="intel/compute-runtime#933 and #997",
        effect=REFUSE,
    ),
    KnownBad(
        name="small-bar-and-lts-2523",
        stacks=("datacenter-2523",),
        small_bar=True,
        symptom=_SMALL_BAR,
        remedy=_REBAR,
        source="intel/compute-runtime#831",
        effect=REFUSE,
    ),
    KnownBad(
        name="small-bar-and-25.18",
        runtime=(Range("25.18.33578.5", before="25.27.34303.5"),),
        small_bar=True,
        symptom=_SMALL_BAR,
        remedy=f"{_REBAR}, or take 25.27.34303.5 or newer where i915 drives the card",
        source="intel/compute-runtime#831",
        effect=REFUSE,
    ),
    KnownBad(
        name="arc-b-bar-not-resized",
        devices=(ARC_B,),
        small_bar=True,
        confidence=MEDIUM,
        symptom="behind a card's own switch the BAR can stay small though Resizable BAR is on (Failed to resize BAR2)",
        remedy="take another firmware of the board; pci=realloc did not help",
        source="siderolabs/pkgs#1688",
    ),
    KnownBad(
        name="runtime-older-than-6.8",
        kernels=(Range("6.8"),),
        # 24.04's own 23.43.27642 has the fix.
        runtime=(Range(before="23.43.27642"), Range("23.44", before="24.13")),
        symptom="this compute runtime finds no GPU with kernel 6.8 or newer",
        remedy="take 24.13 or newer, or the 23.43.27642 of Ubuntu 24.04; until then OverrideGpuAddressSpace=48",
        source="intel/compute-runtime#710",
        effect=REFUSE,
    ),
    KnownBad(
        name="runtime-without-battlemage",
        devices=(ARC_B,),
        runtime=(Range(before="24.31.30508.5"),),
        symptom=_TOO_OLD,
        remedy=_NEWER,
        source=_TAGS,
        effect=REFUSE,
    ),
    KnownBad(
        name="runtime-without-e216",
        devices=("e216",),
        runtime=(Range(before="25.09"),),
        symptom=_TOO_OLD,
        remedy=_NEWER,
        source=_TAGS,
        effect=REFUSE,
    ),
    KnownBad(
        name="runtime-without-b60",
        devices=("e211",),
        runtime=(Range(before="25.18.33578.5"),),
        symptom=_TOO_OLD,
        remedy=_NEWER,
        source=_TAGS,
        effect=REFUSE,
    ),
    KnownBad(
        name="runtime-without-g31",
        devices=("e220", "e221", "e222", "e223"),
        runtime=(Range(before="25.27.34303.5"),),
        symptom=_TOO_OLD,
        remedy=_NEWER,
        source=_TAGS,
        effect=REFUSE,
    ),
    KnownBad(
        name="runtime-without-e209",
        devices=("e209",),
        runtime=(Range(before="25.31"),),
        symptom=_TOO_OLD,
        remedy=_NEWER,
        source=_TAGS,
        effect=REFUSE,
    ),
    KnownBad(
        name="25.35-without-loader",
        packages={"libze-intel-gpu1": (Range("25.35", before="25.36"),)},
        lacking=("libze1",),
        symptom="the packages of 25.35 bring no Level Zero loader",
        remedy="install libze1",
        source="intel/compute-runtime#855",
        effect=REFUSE,
    ),
    KnownBad(
        name="b70-sycl-crash",
        devices=("e222", "e223"),
        runtime=(Range("26.27.39122.12", last="26.27.39122.12"),),
        symptom="SYCL programs crash on B70 (SIGSEGV)",
        remedy="go back to 26.22.38646.6, or on to a newer one",
        source="intel/compute-runtime#972",
    ),
    KnownBad(
        name="b70-pair-resets",
        devices=("e222", "e223"),
        cards=2,
        runtime=(Range("26.31", before="26.35.39758.10"),),
        confidence=MEDIUM,
        symptom="two B70 in one node reset their engines (Fault response -ENOENT)",
        remedy="take 26.35.39758.10 or newer",
        source="intel/compute-runtime#946 and #966",
    ),
    KnownBad(
        name="two-cards-out-of-memory",
        cards=2,
        kernels=(Range(before="7.1"),),
        runtime=(Range("25.44"),),
        confidence=MEDIUM,
        symptom="with two cards the runtime runs out of device memory",
        remedy="take kernel 7.1 or newer; until then ForceZeDeviceCanAccessPerReturnValue=0",
        source="intel/compute-runtime#916 and #921",
    ),
    KnownBad(
        name="two-cards-mirrored-in-ram",
        cards=2,
        runtime=(Range("26.09"),),
        confidence=MEDIUM,
        symptom="with two cards the memory of both is mirrored in the machine's own",
        remedy="set EnableDeferBacking=0 where the machine runs out of memory",
        source="intel/compute-runtime#953",
    ),
    KnownBad(
        name="a770-wrong-results",
        devices=("56a0",),
        runtime=(Range("23.39"),),
        confidence=MEDIUM,
        symptom="A770 computed wrong results in silence",
        remedy="take a runtime with commit 3d7a21dca9, which is newer than August 2026",
        source="intel/compute-runtime#973",
    ),
    KnownBad(
        name="a770-onednn",
        devices=("56a0",),
        runtime=(Range("26.14.37833.4"),),
        confidence=MEDIUM,
        symptom="oneDNN cannot make its primitives on A770",
        remedy="go back to an older runtime where that happens",
        source="intel/compute-runtime#963",
    ),
    KnownBad(
        name="b60-shared-memory",
        devices=("e211",),
        runtime=(Range(before="26.18.38308.1"),),
        confidence=MEDIUM,
        symptom="shared memory of B60 gives wrong results or loses the device",
        remedy="take 26.18.38308.1 or newer",
        source="intel/compute-runtime#941",
    ),
    KnownBad(
        name="b70-memset",
        devices=("e222", "e223"),
        runtime=(Range("25.48", before="25.49"),),
        confidence=MEDIUM,
        symptom="B70 loses the device in a memset",
        remedy="take a newer runtime",
        source="intel/compute-runtime#944",
    ),
    KnownBad(
        name="b580-7.0.0-27",
        devices=("e20b",),
        kernels=(Range("7.0.0-27", last="7.0.0-27"),),
        confidence=MEDIUM,
        symptom="B580 gave wrong pictures with this kernel",
        remedy="take a newer kernel and runtime",
        source="intel/compute-runtime#945",
    ),
    KnownBad(
        name="flex-140-beside-integrated",
        devices=("56c1",),
        stacks=("datacenter-2523", "datacenter-682"),
        integrated=True,
        confidence=MEDIUM,
        symptom="with Flex 140 and active graphics of the processor the boot can stop in i915",
        remedy="turn the processor's graphics off in the BIOS setup",
        source="intel-gpu/intel-gpu-i915-backports#167",
    ),
    KnownBad(
        name="xpu-smi-2.0.1",
        devices=("e20b", "e20c"),
        packages={"xpu-smi": (Range("2.0.1", before="2.0.2"),)},
        symptom="xpu-smi does not know this card, tells of survivability mode, and may crash",
        remedy="look at the card with clinfo, and take a newer xpu-smi once there is one",
        source="intel/xpumanager#158 and #151",
    ),
    KnownBad(
        name="xpu-smi-flex-140",
        devices=("56c1",),
        packages={"intel-opencl-icd": (Range("25.18.33578.5", before="25.18.33578.78"),)},
        confidence=MEDIUM,
        symptom="xpu-smi shows no power and no PCIe traffic of Flex 140",
        remedy="take 2523.78 or newer",
        source="intel/xpumanager#108 and #114",
    ),
    KnownBad(
        name="dkms-1.24.3.23-on-6.8.0-45",
        kernels=(Range("6.8.0-45"),),
        packages={"intel-i915-dkms": (Range("1.24.3.23", before="1.24.6"),)},
        symptom="intel-i915-dkms 1.24.3.23 does not compile for kernel 6.8.0-45 and newer",
        remedy="take the release of the LTS line that was made for the kernel",
        source="intel/ipex-llm#12156",
        effect=REFUSE,
    ),
    KnownBad(
        name="dkms-1.24.6.12-on-6.8.0-51",
        kernels=(Range("6.8.0-51"),),
        packages={"intel-i915-dkms": (Range("1.24.6.12", before="1.24.6.13"),)},
        symptom="intel-i915-dkms 1.24.6.12 does not compile for kernel 6.8.0-51 and newer",
        remedy="take the release of the LTS line that was made for the kernel",
        source="intel-gpu/intel-gpu-i915-backports#207",
        effect=REFUSE,
    ),
    KnownBad(
        name="vsec-of-another-release",
        # From 682.14 on one package has all; 1.23.5.19 (647.21) was made with vsec 2023.20.0.
        packages={"intel-i915-dkms": (Range("1.23.6"),), "intel-platform-vsec-dkms": (Range(),)},
        symptom="the modules of two releases do not fit (Unknown symbol intel_vsec_register)",
        remedy="remove intel-platform-vsec-dkms and intel-platform-cse-dkms",
        source="intel-gpu/intel-gpu-i915-backports#68",
        effect=REFUSE,
    ),
    KnownBad(
        name="vsec-of-another-release-647",
        packages={
            "intel-i915-dkms": (Range("1.23.5.19", before="1.23.5.20"),),
            "intel-platform-vsec-dkms": (Range(before="2023.20.0"), Range("2023.20.1")),
        },
        symptom="the modules of two releases do not fit (Unknown symbol intel_vsec_register)",
        remedy="take intel-platform-vsec-dkms 2023.20.0 with this intel-i915-dkms",
        source="intel-gpu/intel-gpu-i915-backports#68",
        effect=REFUSE,
    ),
)


#: Names of combinations that an operator can accept.
NAMES = frozenset(entry.name for entry in COMBINATIONS)


def found(situation: Situation, combinations: Iterable[KnownBad] = COMBINATIONS) -> list[KnownBad]:
    """Return the combinations that a node has, refused ones first."""
    there = [
        replace(entry, effect=WARN) if entry.name in situation.accepted else entry
        for entry in combinations
        if is_there(entry, situation)
    ]
    return sorted(there, key=lambda entry: entry.effect != REFUSE)
