/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The stack switch for x86-64, System V ABI. Layout of what is saved: see
 * coroutine-int.h. Without a note on CET, the linker turns shadow stacks off
 * for the program, as a switch of the ordinary stack alone needs.
 */

        .text

/* void coroutine_switch_stack(Coroutine *from, Coroutine *to) */
        .globl  coroutine_switch_stack
        .hidden coroutine_switch_stack
        .type   coroutine_switch_stack, @function
        .p2align 4
coroutine_switch_stack:
        .cfi_startproc
        pushq   %rbp
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbp, 0
        pushq   %rbx
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %rbx, 0
        pushq   %r12
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r12, 0
        pushq   %r13
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r13, 0
        pushq   %r14
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r14, 0
        pushq   %r15
        .cfi_adjust_cfa_offset 8
        .cfi_rel_offset %r15, 0
        subq    $8, %rsp
        .cfi_adjust_cfa_offset 8
        stmxcsr (%rsp)
        fnstcw  4(%rsp)
        /* Both stacks have the same layout here, so the CFI holds across. */
        movq    %rsp, (%rdi)
        movq    (%rsi), %rsp
        ldmxcsr (%rsp)
        fldcw   4(%rsp)
        addq    $8, %rsp
        .cfi_adjust_cfa_offset -8
        popq    %r15
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r15
        popq    %r14
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r14
        popq    %r13
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r13
        popq    %r12
        .cfi_adjust_cfa_offset -8
        .cfi_restore %r12
        popq    %rbx
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbx
        popq    %rbp
        .cfi_adjust_cfa_offset -8
        .cfi_restore %rbp
        ret
        .cfi_endproc
        .size   coroutine_switch_stack, . - coroutine_switch_stack

/* Where a new stack begins: r12 is the coroutine. The backtrace ends here. */
        .globl  coroutine_switch_start
        .hidden coroutine_switch_start
        .type   coroutine_switch_start, @function
        .p2align 4
        /* Unwinders look up the return address minus one: keep that inside. */
        .cfi_startproc
        .cfi_undefined %rip
        nop
coroutine_switch_start:
        movq    %r12, %rdi
        call    coroutine_run
        ud2
        .cfi_endproc
        .size   coroutine_switch_start, . - coroutine_switch_start

        .section .note.GNU-stack, "", @progbits
