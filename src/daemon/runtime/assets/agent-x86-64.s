# argv[1]: the serial port. One byte 'r' out when ready; then per 88 bytes in
# (timespec, rand_pool_info with 64 bytes): set clock, add entropy, reseed, one byte 'k' out;
# or, when the nanoseconds are -1: sync, then the four bytes behind the timespec out.
.intel_syntax noprefix
.globl _start
_start:
  mov rdi, [rsp+16]
  sub rsp, 128
  mov r15, rsp
  mov esi, 2
  mov eax, 2
  syscall
  mov r13, rax
  lea rdi, [rip+path]
  mov esi, 2
  mov eax, 2
  syscall
  mov r14, rax
  or rax, r13
  js fail
  lea rsi, [rip+ready]
  call say
message:
  xor r12d, r12d
more:
  mov edi, r13d
  lea rsi, [r15+r12]
  mov edx, 88
  sub edx, r12d
  xor eax, eax
  syscall
  test rax, rax
  jle idle
  add r12, rax
  cmp r12, 88
  jb more
  cmp qword ptr [r15+8], -1
  je flush
  xor edi, edi
  mov rsi, r15
  mov eax, 227
  syscall
  mov edi, r14d
  mov esi, 0x40085203
  lea rdx, [r15+16]
  mov eax, 16
  syscall
  mov edi, r14d
  mov esi, 0x5207
  mov eax, 16
  syscall
  lea rsi, [rip+done]
  call say
  jmp message
flush:
  mov eax, 162
  syscall
  mov edi, r13d
  lea rsi, [r15+16]
  mov edx, 4
  mov eax, 1
  syscall
  jmp message
idle:
  lea rdi, [rip+second]
  xor esi, esi
  mov eax, 35
  syscall
  jmp message
say:
  mov edi, r13d
  mov edx, 1
  mov eax, 1
  syscall
  ret
fail:
  mov edi, 1
  mov eax, 60
  syscall
second: .quad 1, 0
path: .asciz "/dev/urandom"
ready: .ascii "r"
done: .ascii "k"
