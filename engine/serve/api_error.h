// api_error.h: errors as OpenAI's API gives them: {"error": {"message", "type", "param", "code"}}.
//
// Threads: values and pure functions. Errors: none.
#ifndef CAIRN_ENGINE_SERVE_API_ERROR_H_
#define CAIRN_ENGINE_SERVE_API_ERROR_H_

#include <string>

#include "store/base/status.h"

namespace cairn::engine {

struct ApiError {
  int http_status = 500;
  std::string message;
  std::string type;
  std::string param;  // the field; empty: none
  std::string code;   // empty: none
};

// A message "field: what" names the field, as those of INVALID_ARGUMENT, NOT_FOUND and OUT_OF_RANGE
// do here; the field "body" is none.
ApiError ErrorOf(const absl::Status& status);

// What HTTP itself refuses.
ApiError ErrorOf(int http_status, const std::string& message);

std::string ErrorBody(const ApiError& error);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_API_ERROR_H_
