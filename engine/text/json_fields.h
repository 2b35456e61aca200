// json_fields.h: typed members of a parsed JSON object, with errors that name the field.
//
// Threads: pure. Ownership: pointers into the object. Errors: INVALID_ARGUMENT "path.name: ...".
#ifndef CAIRN_ENGINE_TEXT_JSON_FIELDS_H_
#define CAIRN_ENGINE_TEXT_JSON_FIELDS_H_

#include <nlohmann/json.hpp>
#include <string>

#include "store/base/status.h"

namespace cairn::engine {

inline absl::Status FieldError(const std::string& path, const std::string& what) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", what));
}

inline std::string Path(const std::string& path, const std::string& name) {
  return path.empty() ? name : absl::StrCat(path, ".", name);
}
inline std::string Path(const std::string& path, size_t index) {
  return absl::StrCat(path, "[", index, "]");
}

// The member, or nullptr where it is absent or null (the two are the same to both file formats).
template <typename Json>
const Json* FindField(const Json& object, const char* name) {
  const auto it = object.find(name);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

template <typename Json>
absl::StatusOr<std::string> StringField(const Json& object, const std::string& path,
                                        const char* name) {
  const Json* field = FindField(object, name);
  if (field == nullptr) return FieldError(Path(path, name), "missing");
  if (!field->is_string()) return FieldError(Path(path, name), "must be a string");
  return field->template get<std::string>();
}

template <typename Json>
absl::StatusOr<bool> BoolField(const Json& object, const std::string& path, const char* name,
                               bool otherwise) {
  const Json* field = FindField(object, name);
  if (field == nullptr) return otherwise;
  if (!field->is_boolean()) return FieldError(Path(path, name), "must be true or false");
  return field->template get<bool>();
}

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_TEXT_JSON_FIELDS_H_
