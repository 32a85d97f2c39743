#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make a small appliance for libguestfs: make-appliance.py PROGRAMS FOLDER

libguestfs boots a virtual machine, in which its daemon works on the disks. That machine
is usually made by supermin from the installed packages; this one has the daemon and what
it needs for ext4 and tar, starts nothing else, and comes up several times faster.
PROGRAMS is the folder of fetch-programs.sh, and this runs under enter.sh; FOLDER gets
the files that guestfs(3) describes under "fixed appliance".
"""
import glob
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile

SUPERMIN = '/usr/lib/x86_64-linux-gnu/guestfs/supermin.d'
MODULES = ['virtio_pci', 'virtio_scsi', 'virtio_console', 'virtio_blk', 'sd_mod', 'ext4']
EARLY = ['dash', 'mount', 'insmod', 'switch_root', 'sleep']
PROGRAMS = EARLY + [
    'bash', 'mkdir', 'ls', 'readlink', 'cat', 'cp', 'rm', 'mv', 'ln', 'dd', 'df', 'du', 'stat',
    'sync', 'touch', 'tar', 'gzip', 'umount', 'blockdev', 'blkid', 'wipefs', 'fstrim', 'mke2fs',
    'e2fsck', 'resize2fs', 'tune2fs', 'dumpe2fs', 'parted', 'sgdisk', 'sfdisk', 'file', 'find',
    'grep', 'sed', 'chmod', 'chown', 'mknod', 'reboot']
LINKS = {'sh': 'dash', 'mkfs.ext4': 'mke2fs', 'mkfs.ext2': 'mke2fs', 'fsck.ext4': 'e2fsck',
         'mkfs.ext3': 'mke2fs'}
# The daemon's disk is the last one, and found by its label.
EARLY_INIT = '''#!/bin/sh
export PATH=/usr/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
for module in %s; do insmod $module; done
until mount LABEL=appliance /new 2>/dev/null; do sleep 0.1; done
exec switch_root /new /init
'''
INIT = '''#!/bin/sh
export PATH=/usr/bin
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /tmp
ln -s /proc/self/fd /dev/fd
mkdir -p /dev/virtio-ports /dev/disk/by-path
until [ -e /dev/vport*p1 ]; do sleep 0.1; done
ln -s /dev/vport*p1 /dev/virtio-ports/org.libguestfs.channel.0
# In the order of the bus, as udev would show them; the kernel's names vary with time.
for disk in /sys/block/sd*; do
    device=$(readlink $disk/device)
    ln -s /dev/${disk##*/} /dev/disk/by-path/pci-0-scsi-${device##*/}
done
guestfsd
sync
reboot -f
'''
SIGNED = b'~Module signature appended~\n'


def libraries(programs):
    """The files that the loader opens for programs."""
    found = set()
    for program in programs:
        done = subprocess.run(['ldd', program], stdout=subprocess.PIPE, check=True, text=True)
        found.update(re.findall(r'(/\S+) \(0x', done.stdout))
    return found


def install(source, tree, folder):
    """Copy what source leads to, under source's own name."""
    os.makedirs(os.path.join(tree, folder), exist_ok=True)
    shutil.copy(os.path.realpath(source), os.path.join(tree, folder, os.path.basename(source)))


def make_tree(tree, programs, daemon=None):
    """A root folder with programs, what they link with, and the folders for mounts."""
    for folder in ('proc', 'sys', 'dev', 'run', 'tmp', 'new', 'sysroot', 'etc', 'root', 'var',
                   'usr/bin', 'usr/lib', 'usr/lib64'):
        os.makedirs(os.path.join(tree, folder))
    for name, target in {'bin': 'usr/bin', 'sbin': 'usr/bin', 'lib': 'usr/lib',
                         'lib64': 'usr/lib64', 'usr/sbin': 'bin'}.items():
        os.symlink(target, os.path.join(tree, name))
    if daemon:
        with tarfile.open(daemon) as archive:
            archive.extractall(tree)
    paths = [path for path in (shutil.which(name) for name in programs) if path]
    for path in paths:
        install(path, tree, 'usr/bin')
    for name, target in LINKS.items():
        if target in programs:
            os.symlink(target, os.path.join(tree, 'usr/bin', name))
    if daemon:
        paths.append(os.path.join(tree, 'usr/sbin/guestfsd'))
    for path in libraries(paths):
        install(path, tree, os.path.dirname(path).lstrip('/'))


def drop_signature(module):
    """To verify it takes an emulated processor a second each."""
    with open(module, 'r+b') as file:
        content = file.read()
        if content.endswith(SIGNED):
            # The signature's length stands, big endian, right before the mark.
            end = len(content) - len(SIGNED)
            file.truncate(end - 12 - int.from_bytes(content[end - 4:end], 'big'))


def modules(folder, tree):
    """Copy the modules into tree, those that others need first; return their names."""
    with open(os.path.join(folder, 'modules.dep'), encoding='ascii') as file:
        needs = dict(line.strip().split(':') for line in file)
    paths = {os.path.basename(path).split('.')[0].replace('-', '_'): path for path in needs}
    order = []

    def add(path):
        for need in reversed(needs[path].split()):
            if need not in order:
                order.append(need)
        if path not in order:
            order.append(path)

    for name in MODULES:
        # What is not there as a module is in the kernel itself.
        if name in paths:
            add(paths[name])
    for path in order:
        install(os.path.join(folder, path), tree, 'modules')
        drop_signature(os.path.join(tree, 'modules', os.path.basename(path)))
    return ['/modules/' + os.path.basename(path) for path in order]


def write_init(tree, text):
    path = os.path.join(tree, 'init')
    with open(path, 'w', encoding='ascii') as file:
        file.write(text)
    os.chmod(path, 0o755)


def main():
    programs, folder = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    kernel, = glob.glob(os.path.join(programs, 'files/boot/vmlinuz-*'))
    release = os.path.basename(kernel).split('-', 1)[1]
    subprocess.run(['depmod', '-b', os.path.join(programs, 'files'), release], check=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        early, root = os.path.join(scratch, 'early'), os.path.join(scratch, 'root')
        make_tree(early, EARLY)
        order = modules(os.path.join(programs, 'files/lib/modules', release), early)
        write_init(early, EARLY_INIT % ' '.join(order))
        make_cpio(early, os.path.join(folder, 'initrd'))

        make_tree(root, PROGRAMS, os.path.join(SUPERMIN, 'daemon.tar.gz'))
        write_init(root, INIT)
        disk = os.path.join(folder, 'root')
        subprocess.run(['mke2fs', '-q', '-F', '-t', 'ext4', '-O', '^has_journal', '-L',
                        'appliance', '-d', root, disk, '256M'], check=True)
    shutil.copy(kernel, os.path.join(folder, 'kernel'))
    with open(os.path.join(folder, 'README.fixed'), 'w', encoding='ascii') as file:
        file.write('Made by make-appliance.py.\n')


def make_cpio(tree, target):
    """An archive of tree in the format that the kernel unpacks (newc)."""
    with open(target, 'wb') as out:
        names = ['']
        for folder, folders, files in os.walk(tree):
            names += [os.path.relpath(os.path.join(folder, name), tree) for name in folders + files]
        for number, name in enumerate(sorted(names)[1:], 1):
            path = os.path.join(tree, name)
            info = os.lstat(path)
            if os.path.islink(path):
                content = os.readlink(path).encode()
            elif os.path.isdir(path):
                content = b''
            else:
                with open(path, 'rb') as file:
                    content = file.read()
            add_entry(out, name, content, info.st_mode, number)
        add_entry(out, 'TRAILER!!!', b'', 0, 0)


def add_entry(out, name, content, mode, number):
    fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
    head = ('070701' + ''.join('%08X' % field for field in fields) + name + '\0').encode()
    out.write(head + b'\0' * (-len(head) % 4) + content + b'\0' * (-len(content) % 4))


if __name__ == '__main__':
    main()
