"""The milter: is this message spam?"""
