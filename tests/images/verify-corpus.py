#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Compares what the manifest of a corpus says with what QEMU does: verify-corpus.py OUTDIR

The manifest comes from a flat model and from knowledge of the formats, so this
finds mistakes of the recipes. Prints every difference and fails if there is one.
"""
import argparse
import hashlib
import json
import os
import resource
import subprocess
import sys
import tempfile

import qemu


def limits():
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))


class Verifier:
    """Runs qemu-img in the corpus folder."""

    def __init__(self, folder, scratch):
        self.folder = folder
        self.output = os.path.join(scratch, 'out.raw')

    def run(self, *args):
        return subprocess.run([qemu.qemu_img(), *args], cwd=self.folder, capture_output=True,
                              text=True, check=False, stdin=subprocess.DEVNULL, timeout=60,
                              preexec_fn=limits)

    def source(self, image):
        if image['opts']:
            return ['--image-opts', image['opts']]
        return ['-f', image['format'], image['file']]

    def content(self, image, snapshot=None):
        """(exit code, sha256 of the content, error text)."""
        choice = ['-l', 'snapshot.name=' + snapshot] if snapshot else []
        if os.path.exists(self.output):
            os.unlink(self.output)
        result = self.run('convert', '-O', 'raw', *choice, *self.source(image), self.output)
        if result.returncode:
            return result.returncode, None, result.stderr.strip()
        with open(self.output, 'rb') as file:
            return 0, hashlib.file_digest(file, 'sha256').hexdigest(), ''

    def observed(self, image):
        """One of the words that `expect` may be, as QEMU sees it."""
        info = self.run('info', '--output=json', *self.source(image))
        if info.returncode:
            return 'refuse', info.stderr.strip()
        if image['virtual_size'] is not None and \
                json.loads(info.stdout)['virtual-size'] != image['virtual_size']:
            return 'size', info.stdout
        chain = self.run('info', '--backing-chain', *self.source(image))
        if chain.returncode:
            return 'loop', chain.stderr.strip()
        if 'huge' not in image['tags']:
            status, _, text = self.content(image)
            if status:
                return ('info' if 'Could not open' in text else 'eio'), text
        check = self.run('check', *self.source(image))
        if check.returncode in (1, 2, 3):
            return 'check', 'status %d: %s' % (check.returncode, check.stderr.strip()[:200])
        return 'ok', ''

    def problems(self, image):
        word, text = self.observed(image)
        expect = image['qemu'] or image['expect']
        if word != expect and expect != 'bounded':
            yield 'expected %s, QEMU: %s %s' % (expect, word, text)
        status = image['check_status']
        if status is not None:
            code = self.run('check', *self.source(image)).returncode
            if code != status:
                yield 'check_status %d, QEMU: %d' % (status, code)
        if image['sha256'] and self.content(image)[1] != image['sha256']:
            yield 'content differs'
        for name, digest in image['snapshots'].items():
            if self.content(image, name)[1] != digest:
                yield 'content of snapshot %s differs' % name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('corpus', metavar='OUTDIR')
    args = parser.parse_args()
    with open(os.path.join(args.corpus, 'corpus.json'), encoding='utf-8') as file:
        images = json.load(file)['images']
    failures = 0
    with tempfile.TemporaryDirectory() as scratch:
        verifier = Verifier(os.path.abspath(args.corpus), scratch)
        for image in images:
            for problem in verifier.problems(image):
                print('%s: %s' % (image['name'], problem))
                failures += 1
    print('%d images, %d differences' % (len(images), failures))
    return 1 if failures else 0


if __name__ == '__main__':
    sys.exit(main())
