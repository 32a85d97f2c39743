# SPDX-License-Identifier: LGPL-2.1-or-later
"""gdb commands for programs that use libblockgraph, live or from a core file.

  gdb -x blockgraph-gdb.py PROGRAM
  (gdb) blockgraph coroutines   every coroutine, with the backtrace of those that wait
  (gdb) blockgraph graph        every node, its children and their permissions
  (gdb) blockgraph requests     what is in flight at each node
"""
import gdb
import gdb.unwinder

# Where the stack switch has put the registers: see util/coroutine-int.h.
SAVED = {
    'i386:x86-64': ({'r15': 8, 'r14': 16, 'r13': 24, 'r12': 32, 'rbx': 40, 'rbp': 48, 'rip': 56},
                    'rsp', 64),
    'aarch64': ({**{f'x{19 + i}': 8 * i for i in range(11)}, 'pc': 88}, 'sp', 176),
}
PERMISSIONS = ['consistent read', 'write', 'write unchanged', 'resize']


def linked(head, member):
    """The records of a linked list."""
    while int(head) != 0:
        yield head
        head = head[member]


def text(pointer):
    return pointer.string() if int(pointer) != 0 else '-'


def symbol_name(address):
    block = gdb.block_for_pc(int(address))
    return block.function.name if block and block.function else f'{int(address):#x}'


class FrameId:
    def __init__(self, sp, pc):
        self.sp = sp
        self.pc = pc


class CoroutineUnwinder(gdb.unwinder.Unwinder):
    """While `registers` is set, the innermost frame was called by a coroutine.

    This way nothing in the inferior is changed, and a core file will do.
    """

    def __init__(self):
        super().__init__('blockgraph-coroutine')
        self.registers = None
        self.sp_name = None
        self.innermost = None

    def __call__(self, pending):
        sp, pc = pending.read_register('sp'), pending.read_register('pc')
        if self.registers is None or (int(sp), int(pc)) != self.innermost:
            return None
        # gdb ends a backtrace whose stack pointers go the wrong way, so this frame
        # pretends to be right below the coroutine's stack.
        info = pending.create_unwind_info(FrameId(self.registers[self.sp_name] - 8, pc))
        for name, value in self.registers.items():
            info.add_saved_register(name, value)
        return info

    def frames(self, registers, sp_name):
        """The frames of the stack whose registers these are."""
        self.sp_name = sp_name
        gdb.newest_frame().select()
        self.innermost = tuple(int(gdb.newest_frame().read_register(name))
                               for name in ('sp', 'pc'))
        self.registers = registers
        gdb.invalidate_cached_frames()
        try:
            frame = gdb.newest_frame()
            # An inlined function's frame is its caller's.
            while frame.type() == gdb.INLINE_FRAME:
                frame = frame.older()
            frame = frame.older()
            while frame is not None:
                yield frame
                frame = frame.older()
        finally:
            self.registers = None
            gdb.invalidate_cached_frames()


unwinder = CoroutineUnwinder()
gdb.unwinder.register_unwinder(None, unwinder, replace=True)


def saved_registers(co):
    """What co->sp points to, or None where the switch is ucontext's."""
    name = gdb.selected_inferior().architecture().name()
    if name not in SAVED or gdb.lookup_global_symbol('coroutine_switch_prepare') is None:
        return None
    symtab = gdb.lookup_global_symbol('coroutine_switch_prepare').symtab
    if 'ucontext' in symtab.filename:
        return None
    offsets, sp_name, size = SAVED[name]
    word = gdb.lookup_type('unsigned long')
    base = int(co['sp'])
    registers = {register: gdb.Value(base + offset).cast(word.pointer()).dereference()
                 for register, offset in offsets.items()}
    registers[sp_name] = gdb.Value(base + size).cast(word)
    return registers, sp_name


def print_stack(co):
    saved = saved_registers(co)
    if saved is None:
        print('    (no backtrace: this stack switch keeps its registers elsewhere)')
        return
    for number, frame in enumerate(unwinder.frames(*saved)):
        where = frame.find_sal()
        place = f' at {where.symtab.filename}:{where.line}' if where.symtab else ''
        print(f'    #{number} {frame.name() or hex(frame.pc())} (){place}')


def coroutines():
    return linked(gdb.parse_and_eval('coroutine_all'), 'all_next')


def state_name(co):
    return str(co['state']).replace('COROUTINE_', '').lower()


class Blockgraph(gdb.Command):
    """Show what a program that uses libblockgraph is doing."""

    def __init__(self):
        super().__init__('blockgraph', gdb.COMMAND_DATA, prefix=True)


class Coroutines(gdb.Command):
    """Every coroutine, with the backtrace of those that have yielded."""

    def __init__(self):
        super().__init__('blockgraph coroutines', gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        # The innermost frame may be main()'s, where gdb would stop.
        with gdb.with_parameter('backtrace past-main', True):
            count = self.show()
        print(f'{count} coroutines')

    def show(self):
        count = 0
        for co in coroutines():
            state = state_name(co)
            if state in ('free', 'thread'):
                continue
            count += 1
            print(f'coroutine {int(co):#x} {state}, created for {symbol_name(co["entry"])}()')
            if int(co['scheduled']) != 0:
                print(f'    queued by {text(co["scheduled"])}()')
            if state == 'yielded':
                print_stack(co)
        return count


def records(head, source, member):
    """The list that begins at the static variable @head of a source file."""
    for symbol in gdb.lookup_static_symbols(head):
        if symbol.symtab.filename.endswith(source):
            return linked(symbol.value(), member)
    raise gdb.GdbError(f'this program has no debugging information of {source}')


def nodes():
    return records('first_node', 'block/node.c', 'next_node')


def backends():
    return records('first_blk', 'block/backend.c', 'next')


def in_flight(counter):
    shards = counter['shard']
    shards = [shards[i] for i in range(shards.type.range()[1] + 1)]
    return sum(int(s['begun']) - int(s['ended']) for s in shards)


def permissions(mask):
    return ', '.join(n for bit, n in enumerate(PERMISSIONS) if int(mask) >> bit & 1) or 'nothing'


class Graph(gdb.Command):
    """Every node, its children and their permissions."""

    def __init__(self):
        super().__init__('blockgraph graph', gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        for bs in nodes():
            drained = int(bs['quiesce_counter'])
            print(f'node {text(bs["node_name"])} ({text(bs["drv"]["format_name"])})'
                  f' {text(bs["filename"])}: {int(bs["length"])} bytes,'
                  f' {int(bs["refcount"])} references' + (f', drained {drained}x' * (drained > 0)))
            for child in linked(bs['children'], 'next_child'):
                print(f'    {text(child["name"])} -> {text(child["bs"]["node_name"])}:'
                      f' takes {permissions(child["perm"])};'
                      f' shares {permissions(child["shared"])}')


class Requests(gdb.Command):
    """What is in flight at each backend and node, with the ranges that are claimed."""

    def __init__(self):
        super().__init__('blockgraph requests', gdb.COMMAND_DATA)

    def invoke(self, argument, from_tty):
        with gdb.with_parameter('backtrace past-main', True):
            requests = [request for co in coroutines() for request in self.requests_of(co)]
        for blk in backends():
            name = f'"{text(blk["name"])}"' if int(blk['name']) != 0 else f'{int(blk):#x}'
            print(f'backend {name}: {in_flight(blk["in_flight"])} in flight')
            for owner, line in requests:
                if owner == int(blk):
                    print(f'    {line}')
        for bs in nodes():
            print(f'node {text(bs["node_name"])}: {in_flight(bs["in_flight"])} in flight')
            for kind in 'exclusive', 'shared':
                for claim in linked(bs['claims'][kind], 'next'):
                    waits = (f', coroutine {int(claim["co"]):#x} waits for it'
                             if int(claim['blockers']) > 0 else '')
                    print(f'    claim {int(claim["offset"])} +{int(claim["bytes"])} {kind}{waits}')

    def requests_of(self, co):
        """Backend and description of the request that a waiting coroutine carries out."""
        saved = saved_registers(co) if state_name(co) == 'yielded' else None
        for frame in unwinder.frames(*saved) if saved else ():
            if frame.name() == 'blk_co_request_run':
                req = frame.read_var('req')
                if not req.is_optimized_out:
                    yield int(req['blk']), (f'{symbol_name(req["run"])}() {int(req["offset"])}'
                                            f' +{int(req["bytes"])}, coroutine {int(co):#x}')


for command in Blockgraph, Coroutines, Graph, Requests:
    command()
