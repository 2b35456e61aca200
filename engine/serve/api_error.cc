#include "engine/serve/api_error.h"

#include <nlohmann/json.hpp>

namespace cairn::engine {
namespace {

constexpr char kInvalid[] = "invalid_request_error";

std::string FieldOf(const std::string& message) {
  const size_t colon = message.find(": ");
  const std::string field = colon == std::string::npos ? "" : message.substr(0, colon);
  const bool is_name = field.find(' ') == std::string::npos && field != "body";
  return is_name ? field : "";
}

}  // namespace

ApiError ErrorOf(const absl::Status& status) {
  const std::string message(status.message().data(), status.message().size());
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return {400, message, kInvalid, FieldOf(message), "invalid_value"};
    case absl::StatusCode::kOutOfRange:
      return {400, message, kInvalid, FieldOf(message), "context_length_exceeded"};
    case absl::StatusCode::kNotFound:
      return {404, message, kInvalid, FieldOf(message), "model_not_found"};
    case absl::StatusCode::kResourceExhausted:
      return {429, message, "rate_limit_error", "", "queue_full"};
    case absl::StatusCode::kUnavailable:
      return {503, message, "server_error", "", "shutting_down"};
    default:
      return {500, message, "server_error", "", "internal_error"};
  }
}

ApiError ErrorOf(int http_status, const std::string& message) {
  return {http_status, message, http_status < 500 ? kInvalid : "server_error", "",
          http_status == 401 ? "invalid_api_key" : ""};
}

std::string ErrorBody(const ApiError& error) {
  const auto or_null = [](const std::string& text) {
    return text.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(text);
  };
  const nlohmann::ordered_json body = {{"error",
                                        {{"message", error.message},
                                         {"type", error.type},
                                         {"param", or_null(error.param)},
                                         {"code", or_null(error.code)}}}};
  return body.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace cairn::engine
