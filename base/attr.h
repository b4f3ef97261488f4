/*
 * base/attr.h - what we tell the compiler: results that must be used, owners that free themselves.
 *
 * An owner is a local declared with own(T) or own_struct(T): it is freed wherever the function
 * leaves. give(p) hands it on and leaves NULL, give_struct(s) leaves zeros. Each owner is defined
 * once, beside its type, with OWNER(T, free) for pointers or OWNER_STRUCT(T, free) for structs held
 * by value.
 */
#ifndef BASE_ATTR_H
#define BASE_ATTR_H

#include <stddef.h>

#define MUST_USE __attribute__((warn_unused_result))
#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define NONNULL __attribute__((nonnull))
/* Against -ftrivial-auto-var-init, for what is large and filled before it is read. */
#if __has_attribute(uninitialized)
#define UNINITIALIZED __attribute__((uninitialized))
#else
#define UNINITIALIZED
#endif
#define UNUSED __attribute__((unused))
#define NORETURN __attribute__((noreturn))

#define own(type) __attribute__((cleanup(own_##type##_))) type *
#define own_struct(type) __attribute__((cleanup(own_##type##_))) struct type

/* own(T) for pointers to a type with a one-word name, whose free function accepts NULL. */
#define OWNER(type, free_fn)                                                                       \
	UNUSED static inline void own_##type##_(type **p)                                          \
	{                                                                                          \
		free_fn(*p);                                                                       \
	}

/* own_struct(T) for `struct T` held by value; free_fn takes its address and may run twice. */
#define OWNER_STRUCT(type, free_fn)                                                                \
	UNUSED static inline void own_##type##_(struct type *p)                                    \
	{                                                                                          \
		free_fn(p);                                                                        \
	}

#define give(p)                                                                                    \
	__extension__({                                                                            \
		__typeof__(p) give_ = (p);                                                         \
		(p) = NULL;                                                                        \
		give_;                                                                             \
	})

/* What is owned by value is nothing once it is all zeros. */
#define give_struct(s)                                                                             \
	__extension__({                                                                            \
		__typeof__(s) given_ = (s);                                                        \
		__builtin_memset(&(s), 0, sizeof(s));                                              \
		given_;                                                                            \
	})

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#endif
