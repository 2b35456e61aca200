#include "engine/state/numerics.h"

namespace cairn::engine {

const char* NumericsName(Numerics numerics) {
  switch (numerics) {
    case Numerics::kPlain:
      return "plain";
    case Numerics::kKvq:
      return "kvq";
    case Numerics::kFull:
      return "full";
    case Numerics::kFullSm90a:
      return "full-sm90a";
    case Numerics::kFullAmx:
      return "full-amx";
  }
  return "?";
}

std::optional<Numerics> ParseNumerics(const std::string& name) {
  for (const Numerics n : {Numerics::kPlain, Numerics::kKvq, Numerics::kFull, Numerics::kFullAmx}) {
    if (name == NumericsName(n)) return n;
  }
  return std::nullopt;
}

}  // namespace cairn::engine
