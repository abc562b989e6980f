"""What the engine uses of src/platform.h, and what the build says of itself."""

cdef extern from "platform.h" nogil:
    double platform_monotonic()
    bint platform_flag_raise(int *)
    void platform_flag_lower(int *)
    const char *PLATFORM_COMPILER
    const char *PLATFORM_KQUEUE


cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    #define KERNEL_HAS_NO_GIL 1
    #else
    #define KERNEL_HAS_NO_GIL 0
    #endif
    """
    bint KERNEL_HAS_NO_GIL
    unsigned long CYTHON_HEX_VERSION
