//! What a plane that followed every delta has in the kernel is what a plane has there that loaded the table once. The kernel is one
//! in memory.
