// texts.h: the prompts of a simulation: a few that share beginnings, in two tenants' namespaces.
//
// Threads: immutable once made.
#ifndef CAIRN_TESTS_SIM_TEXTS_H_
#define CAIRN_TESTS_SIM_TEXTS_H_

#include <map>
#include <string>
#include <vector>

#include "cache/core/rig_entries.h"
#include "store/base/digest.h"

namespace cairn::sim {

inline constexpr const char* kTenants[] = {"", "other"};
inline constexpr const char* kSecrets[] = {"a secret", "another secret"};
inline constexpr size_t kTenantCount = 2;

struct Text {
  size_t tenant = 0;
  std::vector<Digest> chain;
};

// Where a block stands.
struct Place {
  size_t tenant = 0;
  Digest parent;  // the root, for index 0
  uint32_t index = 0;
};

class Texts {
 public:
  Texts();

  const std::vector<Text>& all() const { return texts_; }
  const Digest& root(size_t tenant) const { return roots_[tenant]; }
  // Null for a digest that is of no text.
  const Place* Find(const Digest& digest) const;
  cache::ReserveItem Item(const Text& text, size_t index, EntryKind kind) const;

 private:
  std::vector<Digest> roots_;
  std::vector<Text> texts_;
  std::map<Digest, Place> places_;
};

}  // namespace cairn::sim

#endif  // CAIRN_TESTS_SIM_TEXTS_H_
