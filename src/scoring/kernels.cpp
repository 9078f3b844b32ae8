#include "kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>

// Clang has other pragmas for functions of other instruction sets; what it compiles has the portable kernel.
#if defined(__GNUC__) && !defined(__clang__)
#if defined(__x86_64__)
#define HAS_X86_KERNELS
#include <immintrin.h>
#elif defined(__aarch64__) && __GNUC__ >= 10
#define HAS_ARM_KERNELS
#include <arm_neon.h>
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif
#endif

#ifndef __clang__
// Else GCC 12 copies each sum before and after it is added to, which takes a third more time.
#pragma GCC optimize("no-tree-coalesce-vars")
#endif
#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 16")

namespace effovpr {

#ifdef HAS_X86_KERNELS
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
namespace avx512_vnni {

constexpr int kLanes = 16, kRows = 6, kColumns = 2, kMostWords = 1 << 16;
typedef int32_t Integers __attribute__((vector_size(64)));
typedef __m512i Sums;

INLINE Sums nothing() { return _mm512_setzero_si512(); }
INLINE Sums add(Sums sums, uint32_t word, const int8_t* query) {
  return _mm512_dpbusd_epi32(sums, _mm512_set1_epi32(static_cast<int>(word)), _mm512_load_si512(query));
}
INLINE Integers total(Sums sums) { return (Integers)sums; }

#include "nearest.inc"

bool is_supported() {
  return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

}  // namespace avx512_vnni
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2")
namespace avx2 {

constexpr int kLanes = 8, kRows = 4, kColumns = 2, kMostWords = 128;
typedef int32_t Integers __attribute__((vector_size(32)));
// Of 16 bits, each for two of the four components of a keypoint.
typedef __m256i Sums;

INLINE Sums nothing() { return _mm256_setzero_si256(); }
INLINE Sums add(Sums sums, uint32_t word, const int8_t* query) {
  const __m256i components = _mm256_load_si256(reinterpret_cast<const __m256i*>(query));
  return _mm256_add_epi16(sums, _mm256_maddubs_epi16(_mm256_set1_epi32(static_cast<int>(word)), components));
}
INLINE Integers total(Sums sums) { return (Integers)_mm256_madd_epi16(sums, _mm256_set1_epi16(1)); }

#include "nearest.inc"

bool is_supported() { return __builtin_cpu_supports("avx2"); }

}  // namespace avx2
#pragma GCC pop_options
#endif

#ifdef HAS_ARM_KERNELS
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
namespace neon_dotprod {

constexpr int kLanes = 4, kRows = 4, kColumns = 4, kMostWords = 1 << 16;
typedef int32_t Integers __attribute__((vector_size(16)));
typedef int32x4_t Sums;

INLINE Sums nothing() { return vdupq_n_s32(0); }
INLINE Sums add(Sums sums, uint32_t word, const int8_t* query) {
  return vdotq_s32(sums, vreinterpretq_s8_u32(vdupq_n_u32(word)), vld1q_s8(query));
}
INLINE Integers total(Sums sums) { return (Integers)sums; }

#include "nearest.inc"

bool is_supported() { return getauxval(AT_HWCAP) & HWCAP_ASIMDDP; }

}  // namespace neon_dotprod
#pragma GCC pop_options
#endif

namespace portable {

constexpr int kLanes = 4, kRows = 4, kColumns = 2, kMostWords = 256;
typedef int32_t Integers __attribute__((vector_size(16)));
typedef int8_t Bytes __attribute__((vector_size(16)));
// Of 16 bits, each for one of the four components of a keypoint.
typedef int16_t Sums __attribute__((vector_size(32)));

INLINE Sums nothing() { return Sums{}; }
INLINE Sums add(Sums sums, uint32_t word, const int8_t* query) {
  const uint32_t repeated[4] = {word, word, word, word};
  Bytes candidate, components;
  std::memcpy(&candidate, repeated, sizeof candidate);
  std::memcpy(&components, query, sizeof components);
  return sums + __builtin_convertvector(candidate, Sums) * __builtin_convertvector(components, Sums);
}
INLINE Integers total(Sums sums) {
  Integers totals;
  for (int lane = 0; lane < kLanes; lane++) {
    totals[lane] = sums[4 * lane] + sums[4 * lane + 1] + sums[4 * lane + 2] + sums[4 * lane + 3];
  }
  return totals;
}

#include "nearest.inc"

bool is_supported() { return true; }

}  // namespace portable

const std::vector<Kernel>& kernels() {
  static const std::vector<Kernel> supported = [] {
    std::vector<Kernel> known = {
#ifdef HAS_X86_KERNELS
        {"avx512-vnni", avx512_vnni::is_supported, avx512_vnni::find_nearest},
        {"avx2", avx2::is_supported, avx2::find_nearest},
#endif
#ifdef HAS_ARM_KERNELS
        {"neon-dotprod", neon_dotprod::is_supported, neon_dotprod::find_nearest},
#endif
        {"portable", portable::is_supported, portable::find_nearest},
    };
    known.erase(std::remove_if(known.begin(), known.end(), [](const Kernel& one) { return !one.is_supported(); }),
                known.end());
    return known;
  }();
  return supported;
}

}  // namespace effovpr
