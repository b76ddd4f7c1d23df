// What an application of 2021 does with an agent.
#pragma once

#include <grpcpp/grpcpp.h>

#include <string>

#include "orders.pb.h"

// Runs the application once, adds what it saw to the report, and returns the status of its last call, or of the one
// that failed before it.
grpc::Status run_application(const std::string& address, const lightkeeper::conformance::Application& order,
                             lightkeeper::conformance::Report* report);
