# Read by llama-cpp-python's CMake run (CMAKE_PROJECT_INCLUDE). Its bindings never load llama.cpp's `common` library, yet its
# CMakeLists forces it on in the cache; a plain variable wins over the cache and saves a third of the compile.
set(LLAMA_BUILD_COMMON OFF)
