// What this machine may run: instruction sets that the processor has, the operating system lets us use, and
// SEPWISE_ISA does not forbid. Asked once per process; AMX has to be requested from the kernel.
#pragma once

#include <cstdint>
#include <string>

#include "separable_conv2d/kernel.h"

namespace sepwise {

// A set of Isa, one bit each.
class IsaSet {
 public:
  IsaSet& add(Isa isa) {
    bits_ |= bit(isa);
    return *this;
  }
  bool has(Isa isa) const { return (bits_ & bit(isa)) != 0; }

 private:
  static uint32_t bit(Isa isa) { return uint32_t(1) << static_cast<int64_t>(isa); }
  uint32_t bits_ = 0;
};

const char* name_of(Isa isa);

struct Machine {
  IsaSet offered;       // by processor and operating system
  IsaSet permitted;     // of those, what SEPWISE_ISA leaves
  std::string setting;  // SEPWISE_ISA as it was given; empty when it is not set
  std::string problem;  // a sentence when SEPWISE_ISA cannot be obeyed; then nothing is permitted
};

const Machine& machine();

}  // namespace sepwise
