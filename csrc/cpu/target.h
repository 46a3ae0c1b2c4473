// Code for one instruction set, in a file of its own: HK_TARGET_BEGIN("avx2,fma") ... HK_TARGET_END.
//
// A pragma chooses the instruction set for what follows, and so stands behind the standard headers: no function of the
// standard library is then compiled for it and shared with code for older processors.
#pragma once

#define HK_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define HK_TARGET_BEGIN(target_names) \
  HK_PRAGMA(clang attribute push(__attribute__((target(target_names))), apply_to = function))
#define HK_TARGET_END HK_PRAGMA(clang attribute pop)
#else
#define HK_TARGET_BEGIN(target_names) HK_PRAGMA(GCC push_options) HK_PRAGMA(GCC target target_names)
#define HK_TARGET_END HK_PRAGMA(GCC pop_options)
#endif
