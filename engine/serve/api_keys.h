// api_keys.h: the keys of which requests must show one ("Authorization: Bearer KEY").
//
// Keys are kept as SHA-256 digests and compared as such, so how long a comparison takes says
// nothing about a key.
//
// Threads: immutable. Units: a key has 16 to 512 visible ASCII characters.
// Errors:  INVALID_ARGUMENT, naming the line but no key; of a file also those of secret_file.h.
#ifndef CAIRN_ENGINE_SERVE_API_KEYS_H_
#define CAIRN_ENGINE_SERVE_API_KEYS_H_

#include <string>
#include <string_view>

#include "absl/container/flat_hash_set.h"
#include "store/base/digest.h"
#include "store/base/status.h"

namespace cairn::engine {

class ApiKeys {
 public:
  // None: everybody is let in.
  ApiKeys() = default;
  // One a line; '#' begins a comment. At least one. `name`: of the text, for errors.
  static absl::StatusOr<ApiKeys> Parse(std::string_view text, const std::string& name);
  // Of a file that only its owner may read. NOT_FOUND.
  static absl::StatusOr<ApiKeys> Load(const std::string& path);

  bool empty() const { return digests_.empty(); }
  // `authorization`: the header's value.
  bool LetIn(std::string_view authorization) const;

 private:
  absl::flat_hash_set<Digest> digests_;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_API_KEYS_H_
