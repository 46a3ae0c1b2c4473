// The tile registers of AMX.
#pragma once

namespace hk {

enum class TileProducts { bf16, int8 };

// Whether this processor has them with such products, and the operating system lets this process use them.
bool has_tiles(TileProducts products);

}  // namespace hk
