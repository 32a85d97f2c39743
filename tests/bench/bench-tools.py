#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""What a start of blockgraph-img takes, and of qemu-img: `info` and `create`, in turns.

  bench-tools.py OURS [--runs N] [--snapshots N] [--instructions] [CASE...]

OURS is build/tools/blockgraph-img; BLOCKGRAPH_TEST_QEMU_IMG names the reference. For each
case: CPU time (user and system) and the median of the time that passes, per run, and the
largest resident set, which takes GNU time: a process that Python starts begins with the
peak of Python's. The ratio is ours to QEMU's, so 1 and less is what is wanted. With
--instructions valgrind counts what both execute, which no other load of the machine changes.
"""
import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

CREATE = {
    'create raw 10G': ['-f', 'raw', 'new', '10G'],
    'create raw 1T': ['-f', 'raw', 'new', '1T'],
    'create qcow2 10G': ['-f', 'qcow2', 'new', '10G'],
    'create qcow2 1T': ['-f', 'qcow2', 'new', '1T'],
    'create qcow2 10G metadata': ['-f', 'qcow2', '-o', 'preallocation=metadata', 'new', '10G'],
}
INFO = {
    'info small': ['small'],
    'info json small': ['--output=json', 'small'],
    'info raw': ['-f', 'raw', 'raw'],
    'info 1T with tables': ['large'],
    'info 63T': ['huge'],
    'info chain of 64': ['--backing-chain', 'chain64'],
    'info 1000 snapshots': ['snapshots'],
}
CASES = {**{name: ['create', '-q', *words] for name, words in CREATE.items()},
         **{name: ['info', *words] for name, words in INFO.items()}}


class Program:
    """One of the two, and what its runs have taken."""

    def __init__(self, path):
        self.path, self.env = path, dict(os.environ)
        # Tools that were unpacked beside a script: without the script.
        root = os.path.join(os.path.dirname(os.path.realpath(path)), 'root')
        if os.path.exists(os.path.join(root, 'usr/bin/qemu-img')):
            self.path = os.path.join(root, 'usr/bin/qemu-img')
            self.env['LD_LIBRARY_PATH'] = ':'.join(
                os.path.join(root, folder, 'x86_64-linux-gnu') for folder in ('usr/lib', 'lib'))
        self.clear()

    def clear(self):
        self.cpu, self.wall = [], []

    def run(self, words):
        """One run; what it takes is noted."""
        begin = time.perf_counter()
        child = subprocess.Popen([self.path, *words], env=self.env, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        errors = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        child.stderr.close()
        if child.returncode:
            sys.exit('%s %s: %s' % (self.path, words, errors.decode('utf-8', 'replace')))
        self.wall.append(time.perf_counter() - begin)
        self.cpu.append(usage.ru_utime + usage.ru_stime)

    def memory(self, words):
        """The largest resident set of one run, in MiB."""
        if shutil.which('time') is None:
            return float('nan')
        done = subprocess.run(['time', '-f', '%M', self.path, *words], env=self.env,
                              stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, check=True)
        return int(done.stderr.split()[-1]) / 1024

    def instructions(self, words):
        """Millions of instructions of one run under valgrind, which counts them."""
        done = subprocess.run(['valgrind', '--tool=callgrind', '--callgrind-out-file=/dev/null',
                               self.path, *words], env=self.env, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
        count = re.search(rb'Collected : (\d+)', done.stderr)
        return int(count.group(1)) / 1e6 if count and not done.returncode else float('nan')


def make_images(program, snapshots):
    """The images that info is asked for, in the current folder."""
    def img(*words):
        subprocess.run([program.path, *words], env=program.env, check=True,
                       stdout=subprocess.DEVNULL)
    img('create', '-f', 'qcow2', 'small', '1G')
    img('create', '-f', 'raw', 'raw', '1G')
    img('create', '-f', 'qcow2', '-o', 'cluster_size=2M,preallocation=metadata', 'large', '1T')
    img('create', '-f', 'qcow2', '-o', 'cluster_size=2M', 'huge', '63T')
    img('create', '-f', 'qcow2', 'chain1', '1G')
    for i in range(2, 65):
        img('create', '-f', 'qcow2', '-F', 'qcow2', '-b', 'chain%d' % (i - 1), 'chain%d' % i)
    img('create', '-f', 'qcow2', 'snapshots', '1G')
    for i in range(snapshots):
        img('snapshot', '-c', 'snapshot-%d' % i, 'snapshots')


def measure(name, programs, runs, count):
    words = CASES[name]
    for program in programs:
        program.clear()
        program.run(words)
        program.clear()
    for _ in range(runs):
        for program in programs:
            program.run(words)
    columns = [[sum(one.cpu) / runs * 1e3, statistics.median(one.wall) * 1e3, one.memory(words)] +
               ([one.instructions(words)] if count else []) for one in programs]
    cells = ['%7.2f %7.2f %5.2f' % (mine, other, mine / other) for mine, other in zip(*columns)]
    print('%-26s  %s' % (name, '  '.join(cells)), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('ours')
    parser.add_argument('--runs', type=int, default=50)
    parser.add_argument('--snapshots', type=int, default=1000)
    parser.add_argument('--instructions', action='store_true')
    parser.add_argument('cases', nargs='*', metavar='CASE')
    args = parser.parse_args()
    reference = os.environ.get('BLOCKGRAPH_TEST_QEMU_IMG') or shutil.which('qemu-img')
    if reference is None:
        sys.exit('bench-tools.py: no qemu-img')
    programs = [Program(os.path.abspath(args.ours)), Program(os.path.abspath(reference))]
    groups = ['CPU ms', 'time ms', 'memory MiB'] + ['M instructions'] * args.instructions
    print('%-26s  %s\n%-26s  %s' % ('', '  '.join('%-21s' % group for group in groups), '',
                                    '  '.join(['   ours    QEMU ratio'] * len(groups))))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        make_images(programs[0], args.snapshots)
        for name in args.cases or CASES:
            measure(name, programs, args.runs, args.instructions)
        os.chdir('/')


if __name__ == '__main__':
    main()
