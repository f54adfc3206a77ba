"""Copies over the host link and reads from a drive, against values worked out by hand, the arithmetic beside it."""

import numpy as np
import pytest

from moesim.costs.flash import FlashReads, flash_read
from moesim.costs.transfer import HostCopies, host_copy, kernel_slowdown
from moesim.hardware import load_cpu, load_gpu, load_link, load_storage
from moesim.hardware.override import overridden

LINK = load_link("pcie-4.0-x16")  # 26 GB/s, 18.6 both ways, 6 us; a copy asked for every 6 us, 1 us between two
CPU = load_cpu("core-i9-13900k-ddr5-5600")  # one thread copies 7 GB/s: assumed
DRIVE = load_storage("samsung-980-pro-2tb")  # 0.88 x 7 GB/s = 6.16 GB/s, 45 us, 1,000,000 small reads per second


def copy_us(num_bytes, link=LINK, **way):
    return float(host_copy(num_bytes, link, CPU, HostCopies(**way)).seconds) * 1e6


def read_us(num_bytes, path, drive=DRIVE, **way):
    return float(flash_read(num_bytes, drive, CPU, FlashReads(path, **way)).seconds) * 1e6


def test_one_pinned_copy_is_latency_and_bytes():
    assert copy_us(26e6) == pytest.approx(6 + 1000)  # 26 MB at 26 GB/s
    assert copy_us(18.6e6, both_ways=True) == pytest.approx(6 + 1000)
    # a link that doesn't rate both ways gives half of its bandwidth to each
    assert copy_us(10e6, link=load_link("unified-phone"), both_ways=True) == pytest.approx(5 + 10e6 / 15.36e9 * 1e6)


def test_large_copies_wait_for_the_engine_and_small_ones_for_the_host():
    # 26 MB in 10: 100 us each, more than the host's 6; the engine pauses 1 us nine times
    assert copy_us(26e6, copies=10) == pytest.approx(6 + 1000 + 9 * 1)
    # 26 kB in 10: 0.1 us each; the host asks for one every 6 us, the last one ends 0.1 us after it was asked for
    assert copy_us(26e3, copies=10) == pytest.approx(6 + 9 * 6 + 0.1)


def test_pageable_memory_is_copied_twice_and_nothing_overlaps():
    # 7 MB: 1000 us by a thread at 7 GB/s, 269.2 us at 26 GB/s; each of two copies has its latency
    assert copy_us(7e6, memory="pageable") == pytest.approx(6 + 1000 + 7e6 / 26e9 * 1e6)
    assert copy_us(7e6, memory="pageable", copies=2) == pytest.approx(2 * 6 + 1000 + 7e6 / 26e9 * 1e6)
    measured = overridden(LINK, ["pageable_bandwidth"], "10 GB/s")
    assert copy_us(7e6, link=measured, memory="pageable") == pytest.approx(6 + 700)


def test_registering_takes_its_time_once_per_transfer():
    # 9 MB at 4.5 GB/s are 2000 us of page-locking
    assert copy_us(9e6, memory="registered") == pytest.approx(6 + 2000 + 9e6 / 26e9 * 1e6)


def test_a_kernel_beside_a_copy_loses_what_the_copy_writes():
    gpu = load_gpu("rtx-4090")  # 1008 GB/s x 0.911 = 918.3 GB/s
    assert kernel_slowdown(LINK, gpu) == pytest.approx(1 / (1 - 26 / 918.288))
    # both ways: 18.6 GB/s written and 18.6 read
    assert kernel_slowdown(LINK, gpu, HostCopies(both_ways=True)) == pytest.approx(1 / (1 - 37.2 / 918.288))


def test_transfers_rest_on_what_they_use():
    pinned = host_copy(1e6, LINK, CPU).basis
    assert {constant.name for constant in pinned.constants} == {"link.bandwidth", "link.latency"}
    assert pinned.kind == "published"
    assert host_copy(1e6, LINK, CPU, HostCopies("pageable")).basis.kind == "assumed"


def test_a_whole_read_is_latency_and_bytes():
    assert read_us(6.16e6, "whole") == pytest.approx(45 + 1000)


def test_direct_reads_are_bound_by_what_is_in_flight_or_by_the_drive():
    # 1 MiB in 256 reads of 4 KiB, one at a time: 256 x (45 + 0.66494) us
    alone = 45 + 4096 / 6.16e9 * 1e6
    assert read_us(2**20, "direct", read_bytes=4096, depth=1) == pytest.approx(256 * alone)
    # two lanes with 16 in flight each: 8 rounds
    assert read_us(2**20, "direct", read_bytes=4096, depth=16, lanes=2) == pytest.approx(8 * alone)
    # all in flight: the drive serves one each 1 us (its most small reads), the last of 256 is 255 us after the first
    assert read_us(2**20, "direct", read_bytes=4096, depth=256) == pytest.approx(alone + 255 * 1.0)
    # large reads: bytes count. 8 MiB in 1 MiB reads, 8 in flight: one alone, then seven more of 170.22 us
    large = 2**20 / 6.16e9 * 1e6
    assert read_us(2**23, "direct", depth=8) == pytest.approx(45 + 8 * large)


def test_the_page_cache_copies_what_it_has_and_reads_ahead_what_it_lacks():
    # 7 MB that are cached: a thread's 7 GB/s; two threads halve it
    assert read_us(7e6, "page_cache", cached=1.0) == pytest.approx(1000)
    assert read_us(7e6, "page_cache", cached=1.0, lanes=2) == pytest.approx(500)
    # 1 MiB cold: 8 windows of 128 KiB, two in flight: 4 rounds of 45 + 21.278 us = 265.1 us; copying takes 149.8 us
    # and hides behind it, but for one window's eighth
    window, copying = 131072 / 6.16e9 * 1e6, 2**20 / 7e9 * 1e6
    assert read_us(2**20, "page_cache") == pytest.approx(4 * (45 + window) + copying / 8)
    # a drive that is faster than the copy: the read hides, but for an eighth
    quick = overridden(overridden(DRIVE, ["read_latency"], "1 us"), ["read_bandwidth"], "70 GB/s")
    reading = 1 + 8 * 131072 / 61.6e9 * 1e6
    assert read_us(2**20, "page_cache", drive=quick) == pytest.approx(copying + reading / 8)


def test_mapped_memory_faults_window_by_window():
    touches = 256 * 0.17
    window = 131072 / 6.16e9 * 1e6
    assert read_us(2**20, "mmap") == pytest.approx(8 * (45 + window) + touches)
    assert read_us(2**20, "mmap", cached=1.0) == pytest.approx(touches)
    assert read_us(2**20, "mmap_random") == pytest.approx(256 * (45 + 4096 / 6.16e9 * 1e6) + touches)
    # eight threads fault at once: one round, then the drive's bandwidth is the limit
    assert read_us(2**20, "mmap", lanes=8) == pytest.approx(45 + 8 * window + touches / 8)


def test_a_drive_without_a_figure_of_small_reads_serves_a_queue_at_a_time():
    drive = load_storage("ufs-4.0")  # 100 us: 32 reads in that time
    assert read_us(2**20, "direct", drive=drive, read_bytes=4096, depth=256) == pytest.approx(
        100 + 4096 / 3.57e9 * 1e6 + 255 * 100 / 32
    )


@pytest.mark.parametrize("path", ["whole", "direct", "page_cache", "mmap", "mmap_random"])
def test_reads_take_longer_the_more_they_read(path):
    sizes = np.array([0.0, 1.0, 4096.0, 1e5, 1e6, 1e7, 1e8])
    seconds = flash_read(sizes, DRIVE, CPU, FlashReads(path)).seconds
    assert seconds[0] == 0
    assert (np.diff(seconds) > 0).all()
    assert (seconds[1:] >= sizes[1:] / 6.16e9).all()
