// Answers the tile instructions on a machine that has none: each one traps, is decoded and done by a TileMachine of the
// thread. So the very object files that ship are checked, encodings, tile numbers, addresses and strides included.
#pragma once

#include <stdint.h>

#include <atomic>
#if defined(__x86_64__)
#include <signal.h>
#include <ucontext.h>

#include "tile_machine.h"
#endif

namespace tile_traps {

inline std::atomic<int64_t> answered = 0;  // instructions, of all threads

#if defined(__x86_64__)
inline thread_local TileMachine machine;

// One VEX instruction of opcode map 2 (0F38) at `code`; its length, or 0 where it is none of AMX-TILE and AMX-BF16.
inline int64_t answer(const uint8_t* code, const greg_t* registers) {
  static constexpr int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                  REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  if (code[0] != 0xc4 || (code[1] & 0x1f) != 2 || (code[2] & 0x84) != 0) return 0;  // VEX, 0F38, W0, 128 bits
  const int more_reg = code[1] & 0x80 ? 0 : 8, more_index = code[1] & 0x40 ? 0 : 8, more_base = code[1] & 0x20 ? 0 : 8;
  const int second = ~code[2] >> 3 & 15, prefix = code[2] & 3;  // none, 66, F3, F2
  const uint8_t opcode = code[3], mode = code[4] >> 6, reg = (code[4] >> 3 & 7) | more_reg, rm = code[4] & 7;
  if (mode == 3) {
    if (opcode == 0x5c && prefix == 2) {
      machine.product(reg, rm | more_base, second);
      return 5;
    }
    if (opcode == 0x49 && prefix == 0 && code[4] == 0xc0) {
      machine.release();
      return 5;
    }
    return 0;
  }
  if (second != 0) return 0;

  int64_t length = 5, stride = 0;
  const char* memory = nullptr;
  bool relative = false;
  if (rm == 4) {
    const uint8_t sib = code[length++];
    const int index = (sib >> 3 & 7) | more_index, base = sib & 7;
    if (index != 4) stride = (int64_t)((uint64_t)registers[order[index]] << (sib >> 6));
    if (base != 5 || mode != 0) memory = (const char*)registers[order[base | more_base]];
    relative = base == 5 && mode == 0;  // a displacement of four bytes and no base
  } else if (rm == 5 && mode == 0) {
    memory = (const char*)code + 9;  // from the next instruction
    relative = true;
  } else {
    memory = (const char*)registers[order[rm | more_base]];
  }
  if (mode == 1) memory += (int8_t)code[length++];
  if (mode == 2 || relative) {
    int32_t displacement;
    memcpy(&displacement, code + length, 4);
    memory += displacement;
    length += 4;
  }

  if (opcode == 0x4b && rm == 4 && (prefix == 3 || prefix == 1))
    machine.load(reg, memory, stride);
  else if (opcode == 0x4b && rm == 4 && prefix == 2)
    machine.store(reg, (char*)memory, stride);
  else if (opcode == 0x49 && prefix == 0 && reg == 0)
    machine.configure((const uint8_t*)memory + stride);
  else
    return 0;
  return length;
}

inline void on_illegal_instruction(int, siginfo_t*, void* context) {
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  const uint8_t* code = (const uint8_t*)registers[REG_RIP];
  const int64_t length = answer(code, registers);
  if (length == 0) {
    fprintf(stderr, "illegal instruction at %p:", (const void*)code);
    for (int i = 0; i < 12; i++) fprintf(stderr, " %02x", code[i]);
    fprintf(stderr, "\n");
    abort();
  }
  answered++;
  registers[REG_RIP] += length;
}

inline void install() {
  struct sigaction action = {};
  action.sa_sigaction = on_illegal_instruction;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGILL, &action, nullptr);
}
#else
inline void install() {}
#endif

}  // namespace tile_traps
