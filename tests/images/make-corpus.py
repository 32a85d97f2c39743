#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Makes the images that the tests read: make-corpus.py OUTDIR [--quick]

The result is kept: when OUTDIR holds a corpus of these scripts and this QEMU
version, nothing is done. corpus.py describes the manifest, OUTDIR/corpus.json.
"""
import argparse
import fcntl
import hashlib
import json
import os
import shutil
import sys

import damage
import qemu
import recipes_chain
import recipes_qcow2
import recipes_raw
import recipes_special
from corpus import Corpus

HERE = os.path.dirname(os.path.abspath(__file__))
MANIFEST = 'corpus.json'


def key():
    """What the images depend on: these scripts, the fixtures, and the version of QEMU."""
    state = hashlib.sha256(qemu.version().encode())
    folders = (HERE, damage.FIXTURES)
    for folder in folders:
        for name in sorted(os.listdir(folder)):
            if os.path.isfile(os.path.join(folder, name)):
                with open(os.path.join(folder, name), 'rb') as file:
                    state.update(name.encode() + b'\0' + file.read())
    return state.hexdigest()


def usable(folder, wanted, quick):
    """Whether the folder holds this corpus already; a full one serves as a quick one."""
    try:
        with open(os.path.join(folder, MANIFEST), encoding='utf-8') as file:
            manifest = json.load(file)
    except (OSError, ValueError):
        return False
    return manifest['key'] == wanted and (quick or not manifest['quick']) and \
        all(os.path.exists(os.path.join(folder, image['file'])) for image in manifest['images'])


def clear(folder):
    """Empty the folder, but only one that is ours."""
    names = set(os.listdir(folder)) - {'.lock'}
    if names and MANIFEST not in names and '.building' not in names:
        sys.exit('make-corpus: %s is not empty and holds no corpus' % folder)
    with open(os.path.join(folder, '.building'), 'w', encoding='ascii'):
        pass
    for name in names - {'.building'}:
        path = os.path.join(folder, name)
        if os.path.isdir(path) and not os.path.islink(path):
            shutil.rmtree(path)
        else:
            os.unlink(path)


def build(folder, wanted, quick):
    clear(folder)
    corpus = Corpus(folder, quick)
    for module in (recipes_raw, recipes_qcow2, recipes_chain, recipes_special):
        for recipe in module.RECIPES:
            recipe(corpus)
    damage.add_to(corpus)
    manifest = {'key': wanted, 'quick': quick, 'qemu': qemu.version(), 'images': corpus.images}
    with open(os.path.join(folder, MANIFEST), 'w', encoding='utf-8') as file:
        json.dump(manifest, file, indent=1)
    os.unlink(os.path.join(folder, '.building'))
    return len(corpus.images)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('output', metavar='OUTDIR')
    parser.add_argument('--quick', action='store_true', help='only what is tagged quick')
    args = parser.parse_args()
    if not qemu.available():
        sys.exit('make-corpus: qemu-img and qemu-io are needed')
    folder = os.path.abspath(args.output)
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, '.lock'), 'w', encoding='ascii') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = key()
        if usable(folder, wanted, args.quick):
            print('%s: up to date' % folder)
        else:
            print('%s: %d images' % (folder, build(folder, wanted, args.quick)))


if __name__ == '__main__':
    main()
