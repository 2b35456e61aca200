#include "engine/text/json_text.h"

#include <charconv>
#include <cmath>
#include <vector>

namespace cairn::engine {
namespace {

using nlohmann::ordered_json;

// Builds the value from the parser's events. A handler returns false to stop.
class Builder {
 public:
  bool null() { return Put(nullptr); }
  bool boolean(bool value) { return Put(value); }
  bool number_integer(int64_t value) { return Put(value); }
  bool number_unsigned(uint64_t value) { return Put(value); }
  bool number_float(double value, const std::string& text) {
    if (text.find_first_of(".eE") == std::string::npos) return Fail("an integer beyond 64 bits");
    return Put(value);
  }
  bool string(std::string& value) { return Put(std::move(value)); }
  bool binary(ordered_json::binary_t&) { return Fail("binary data"); }
  bool key(std::string& value) {
    key_ = std::move(value);
    return true;
  }
  bool start_object(size_t) { return Open(ordered_json::object()); }
  bool start_array(size_t) { return Open(ordered_json::array()); }
  bool end_object() { return Close(); }
  bool end_array() { return Close(); }
  bool parse_error(size_t at, const std::string&, const nlohmann::detail::exception&) {
    return Fail(absl::StrCat("not valid JSON at byte ", at));
  }

  ordered_json root;
  std::string error;

 private:
  bool Fail(std::string what) {
    error = std::move(what);
    return false;
  }
  ordered_json* Place(ordered_json value) {
    ordered_json* place = &root;
    if (!open_.empty() && open_.back()->is_object()) {
      place = &(*open_.back())[key_];
    } else if (!open_.empty()) {
      place = &open_.back()->emplace_back();
    }
    *place = std::move(value);
    return place;
  }
  bool Put(ordered_json value) {
    Place(std::move(value));
    return true;
  }
  bool Open(ordered_json value) {
    if (open_.size() == kJsonDepthMax) {
      return Fail(absl::StrCat("nested deeper than ", kJsonDepthMax));
    }
    open_.push_back(Place(std::move(value)));
    return true;
  }
  bool Close() {
    open_.pop_back();
    return true;
  }

  // Only the last of them grows, so the pointers stay good.
  std::vector<ordered_json*> open_;
  std::string key_;
};

// As Python's repr(float): the shortest digits that read back the same, with an exponent below
// 1e-4 and from 1e16 on.
std::string PythonFloat(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  char buffer[32];
  const auto end =
      std::to_chars(buffer, buffer + sizeof(buffer), value, std::chars_format::scientific).ptr;
  std::string text(buffer, end);  // -d.ddde+xx
  const size_t e = text.find('e');
  const int exponent = std::atoi(text.c_str() + e + 1);
  if (exponent < -4 || exponent >= 16) return text;
  const bool negative = text[0] == '-';
  std::string digits = text.substr(negative, 1);
  if (e > negative + 2u) digits += text.substr(negative + 2u, e - negative - 2u);
  if (exponent < 0) {
    digits.insert(0, static_cast<size_t>(-exponent), '0');
    digits.insert(1, ".");
  } else {
    const size_t whole = static_cast<size_t>(exponent) + 1;
    if (digits.size() < whole + 1) digits.append(whole + 1 - digits.size(), '0');
    digits.insert(whole, ".");
  }
  return (negative ? "-" : "") + digits;
}

void Append(const ordered_json& value, std::string& out) {
  if (value.is_object() || value.is_array()) {
    const bool object = value.is_object();
    out += object ? '{' : '[';
    const char* separator = "";
    for (const auto& item : value.items()) {
      out += separator;
      separator = ", ";
      if (object) out += ordered_json(item.key()).dump() + ": ";
      Append(item.value(), out);
    }
    out += object ? '}' : ']';
  } else if (value.is_number_float()) {
    out += PythonFloat(value.get<double>());
  } else {
    out += value.dump();
  }
}

}  // namespace

absl::StatusOr<ordered_json> ParseJson(std::string_view text, const std::string& name) {
  Builder builder;
  if (ordered_json::sax_parse(text, &builder)) return std::move(builder.root);
  return absl::InvalidArgumentError(absl::StrCat(name, ": ", builder.error));
}

std::string PythonJson(const ordered_json& value) {
  std::string out;
  Append(value, out);
  return out;
}

}  // namespace cairn::engine
