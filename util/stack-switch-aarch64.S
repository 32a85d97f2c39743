/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stack switch for aarch64, AAPCS64. Layout of what is saved: see
 * coroutine-int.h.
 */

        .text

/* void coroutine_switch_stack(Coroutine *from, Coroutine *to) */
        .globl  coroutine_switch_stack
        .hidden coroutine_switch_stack
        .type   coroutine_switch_stack, %function
        .p2align 4
coroutine_switch_stack:
        .cfi_startproc
        sub     sp, sp, #176
        .cfi_def_cfa_offset 176
        stp     x19, x20, [sp, #0]
        .cfi_rel_offset x19, 0
        .cfi_rel_offset x20, 8
        stp     x21, x22, [sp, #16]
        .cfi_rel_offset x21, 16
        .cfi_rel_offset x22, 24
        stp     x23, x24, [sp, #32]
        .cfi_rel_offset x23, 32
        .cfi_rel_offset x24, 40
        stp     x25, x26, [sp, #48]
        .cfi_rel_offset x25, 48
        .cfi_rel_offset x26, 56
        stp     x27, x28, [sp, #64]
        .cfi_rel_offset x27, 64
        .cfi_rel_offset x28, 72
        stp     x29, x30, [sp, #80]
        .cfi_rel_offset x29, 80
        .cfi_rel_offset x30, 88
        stp     d8, d9, [sp, #96]
        stp     d10, d11, [sp, #112]
        stp     d12, d13, [sp, #128]
        stp     d14, d15, [sp, #144]
        mrs     x2, fpcr
        str     x2, [sp, #160]
        /* Both stacks have the same layout here, so the CFI holds across. */
        mov     x3, sp
        str     x3, [x0]
        ldr     x3, [x1]
        mov     sp, x3
        ldr     x2, [sp, #160]
        msr     fpcr, x2
        ldp     d14, d15, [sp, #144]
        ldp     d12, d13, [sp, #128]
        ldp     d10, d11, [sp, #112]
        ldp     d8, d9, [sp, #96]
        ldp     x29, x30, [sp, #80]
        ldp     x27, x28, [sp, #64]
        ldp     x25, x26, [sp, #48]
        ldp     x23, x24, [sp, #32]
        ldp     x21, x22, [sp, #16]
        ldp     x19, x20, [sp, #0]
        add     sp, sp, #176
        .cfi_def_cfa_offset 0
        .cfi_restore x19
        .cfi_restore x20
        .cfi_restore x21
        .cfi_restore x22
        .cfi_restore x23
        .cfi_restore x24
        .cfi_restore x25
        .cfi_restore x26
        .cfi_restore x27
        .cfi_restore x28
        .cfi_restore x29
        .cfi_restore x30
        ret
        .cfi_endproc
        .size   coroutine_switch_stack, . - coroutine_switch_stack

/* Where a new stack begins: x19 is the coroutine. The backtrace ends here. */
        .globl  coroutine_switch_start
        .hidden coroutine_switch_start
        .type   coroutine_switch_start, %function
        .p2align 4
        /* Unwinders look up the return address minus one: keep that inside. */
        .cfi_startproc
        .cfi_undefined x30
        nop
coroutine_switch_start:
        mov     x0, x19
        bl      coroutine_run
        brk     #0x1
        .cfi_endproc
        .size   coroutine_switch_start, . - coroutine_switch_start

        .section .note.GNU-stack, "", %progbits
