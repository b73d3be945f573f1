#include "cpu_features.h"

#include <cstdlib>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__x86_64__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace sepwise {
namespace {

constexpr Isa all_isas[] = {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512_bf16, Isa::amx};

#if defined(__x86_64__)
struct Registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Registers cpuid(unsigned leaf, unsigned subleaf) {
  Registers r;
  __get_cpuid_count(leaf, subleaf, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}

bool bit(unsigned word, int index) { return (word >> index & 1) != 0; }

// Which register states the operating system saves when it switches threads.
unsigned saved_states() {
  if (!bit(cpuid(1, 0).ecx, 27)) return 0;  // OSXSAVE
  unsigned low, high;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}

// Linux hands out the tile registers on request, for the whole process.
bool request_amx() {
#if defined(__linux__)
  constexpr long arch_req_xcomp_perm = 0x1023, tile_data = 18;
  return syscall(SYS_arch_prctl, arch_req_xcomp_perm, tile_data) == 0;
#else
  return false;
#endif
}

IsaSet offered_isas(bool amx_wanted) {
  const Registers basic = cpuid(1, 0), extended = cpuid(7, 0), more = cpuid(7, 1);
  const unsigned states = saved_states();
  const bool ymm = (states & 0x6) == 0x6, zmm = (states & 0xe6) == 0xe6, tiles = (states & 0x60000) == 0x60000;
  const bool avx2 = ymm && bit(extended.ebx, 5) && bit(basic.ecx, 12) && bit(basic.ecx, 29);  // with FMA and F16C
  const bool avx512 = avx2 && zmm && bit(extended.ebx, 16) && bit(extended.ebx, 17) && bit(extended.ebx, 30) &&
                      bit(extended.ebx, 31) && bit(extended.ebx, 8);  // F, DQ, BW, VL, and BMI2
  const bool avx512_bf16 = avx512 && bit(more.eax, 5);
  const bool amx = avx512_bf16 && tiles && bit(extended.edx, 22) && bit(extended.edx, 24);  // AMX-BF16, AMX-TILE
  IsaSet offered;
  offered.add(Isa::portable);
  if (avx2) offered.add(Isa::avx2);
  if (avx512) offered.add(Isa::avx512);
  if (avx512_bf16) offered.add(Isa::avx512_bf16);
  if (amx && amx_wanted && request_amx()) offered.add(Isa::amx);
  return offered;
}
#else
IsaSet offered_isas(bool) { return IsaSet().add(Isa::portable); }
#endif

// SEPWISE_ISA=avx512 includes the bfloat16 products where the processor has them.
constexpr Isa settings[] = {Isa::portable, Isa::avx2, Isa::avx512, Isa::amx};

std::string list_of_settings(const IsaSet* offered) {
  std::string list;
  for (Isa isa : settings)
    if (offered == nullptr || offered->has(isa)) list += (list.empty() ? "" : ", ") + std::string(name_of(isa));
  return list;
}

Machine look() {
  Machine found;
  const char* setting = std::getenv("SEPWISE_ISA");
  found.setting = setting == nullptr ? "" : setting;
  const bool capped = !found.setting.empty();
  found.offered = offered_isas(!capped || found.setting == name_of(Isa::amx));
  const Isa* cap = nullptr;
  for (const Isa& isa : settings)
    if (capped && found.setting == name_of(isa)) cap = &isa;
  if (capped && cap == nullptr) {
    found.problem = "SEPWISE_ISA=" + found.setting + " is unknown; give " + list_of_settings(nullptr) + ", or unset it";
    return found;
  }
  if (capped && !found.offered.has(*cap)) {
    found.problem = "SEPWISE_ISA=" + found.setting + ": this machine does not offer it; it offers " +
                    list_of_settings(&found.offered);
    return found;
  }
  const Isa last = !capped ? Isa::amx : *cap == Isa::avx512 ? Isa::avx512_bf16 : *cap;
  for (Isa isa : all_isas)
    if (found.offered.has(isa) && isa <= last) found.permitted.add(isa);
  return found;
}

}  // namespace

const char* name_of(Isa isa) {
  switch (isa) {
    case Isa::portable: return "portable";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::avx512_bf16: return "avx512_bf16";
    case Isa::amx: return "amx";
  }
  return "unknown";
}

const Machine& machine() {
  static const Machine found = look();
  return found;
}

}  // namespace sepwise
